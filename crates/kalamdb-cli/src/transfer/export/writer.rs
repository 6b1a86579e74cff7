//! Batches of rows as the bytes of a file.

use std::io::{self, BufWriter, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as ParquetCompression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::jsonl;
use super::target::Target;
use crate::transfer::csv_text::write_field;
use crate::transfer::format::{Compression, Format};
use crate::transfer::values::text_of;

/// Bytes of Parquet that wait in memory for the end of their row group.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// How CSV is written.
#[derive(Debug, Clone)]
pub(super) struct CsvForm {
    pub(super) delimiter: u8,
    pub(super) null_text: String,
    pub(super) has_header: bool,
}

/// Writes one file.
pub(super) struct Writer {
    form: Form,
    text: Vec<u8>,
}

enum Form {
    Csv(Encoder, CsvForm),
    Jsonl(Encoder),
    Parquet(Box<ArrowWriter<Box<dyn Write + Send>>>),
}

/// What text goes through.
enum Encoder {
    Plain(Output),
    Zstd(zstd::Encoder<'static, Output>),
    Gzip(GzEncoder<Output>),
}

type Output = BufWriter<Box<dyn Write + Send>>;

impl Encoder {
    fn new(output: Box<dyn Write + Send>, compression: Compression) -> io::Result<Self> {
        let output = BufWriter::with_capacity(128 << 10, output);
        Ok(match compression {
            Compression::None => Self::Plain(output),
            // A checksum tells a damaged file.
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(output, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
            Compression::Gzip => Self::Gzip(GzEncoder::new(output, flate2::Compression::default())),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(output) => output.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        let mut output = match self {
            Self::Plain(output) => output,
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Gzip(encoder) => encoder.finish()?,
        };
        output.flush()
    }
}

impl Writer {
    /// Begins a file with rows of this schema.
    pub(super) fn new(
        target: &Target,
        format: Format,
        compression: Compression,
        schema: &SchemaRef,
        csv: &CsvForm,
    ) -> anyhow::Result<Self> {
        let output = target.output()?;
        let form = match format {
            Format::Csv => {
                let mut encoder = Encoder::new(output, compression)?;
                if csv.has_header {
                    encoder.write(&header(schema, csv))?;
                }
                Form::Csv(encoder, csv.clone())
            }
            Format::Jsonl => Form::Jsonl(Encoder::new(output, compression)?),
            Format::Parquet => {
                let zstd = ParquetCompression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(zstd).build();
                let schema = SchemaRef::clone(schema);
                Form::Parquet(Box::new(ArrowWriter::try_new(output, schema, Some(properties))?))
            }
        };
        Ok(Self { form, text: Vec::new() })
    }

    /// Some more rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        self.text.clear();
        match &mut self.form {
            Form::Csv(encoder, form) => {
                csv_rows(&mut self.text, batch, form);
                encoder.write(&self.text)?;
            }
            Form::Jsonl(encoder) => {
                jsonl::write(&mut self.text, batch);
                encoder.write(&self.text)?;
            }
            Form::Parquet(writer) => {
                writer.write(batch)?;
                if writer.in_progress_size() > ROW_GROUP_BYTES {
                    writer.flush()?;
                }
            }
        }
        Ok(())
    }

    /// The end of the file.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.form {
            Form::Csv(encoder, _) | Form::Jsonl(encoder) => encoder.finish()?,
            Form::Parquet(writer) => {
                writer.into_inner()?.flush()?;
            }
        }
        Ok(())
    }
}

fn header(schema: &SchemaRef, form: &CsvForm) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, field) in schema.fields().iter().enumerate() {
        if at > 0 {
            out.push(form.delimiter);
        }
        write_field(&mut out, field.name(), form.delimiter, &form.null_text);
    }
    out.push(b'\n');
    out
}

fn csv_rows(out: &mut Vec<u8>, batch: &RecordBatch, form: &CsvForm) {
    for row in 0..batch.num_rows() {
        for (at, array) in batch.columns().iter().enumerate() {
            if at > 0 {
                out.push(form.delimiter);
            }
            match text_of(array, row) {
                Some(text) => write_field(out, &text, form.delimiter, &form.null_text),
                None => out.extend(form.null_text.as_bytes()),
            }
        }
        out.push(b'\n');
    }
}
