#!/bin/sh
# Makes the seeds of each target's corpus from the golden vectors and from the database of format 1.
set -eu
cd "$(dirname "$0")"
vectors=../vectors
for target in segment frame footer event row key directory; do
    mkdir -p "corpus/$target"
done
cp "$vectors"/segment.bin "$vectors"/reject-segment-*.bin corpus/segment/
cp "$vectors"/frame.bin "$vectors"/reject-frame-*.bin corpus/frame/
cp "$vectors"/footer.bin "$vectors"/reject-footer-*.bin corpus/footer/
cp "$vectors"/event-*.bin corpus/event/
cp "$vectors"/row.bin "$vectors"/reject-row-*.bin corpus/row/
for key in "$vectors"/key.bin "$vectors"/reject-key-*.bin; do
    # The target takes the columns' types from the first bytes: how many, then which.
    { printf '\016\000\001\002\003\004\005\006\007\010\011\012\013\015\016'; cat "$key"; } > "corpus/key/$(basename "$key")"
done
# The target takes a mark of a clean end first, 24 bytes, then a segment.
for segment in ../../tests/fixtures/format-1/log/*.klog; do
    cat ../../tests/fixtures/format-1/log/CLEAN "$segment" > "corpus/directory/$(basename "$segment")"
done
cat ../../tests/fixtures/format-1/log/CLEAN "$vectors"/segment.bin "$vectors"/frame.bin > corpus/directory/vectors
