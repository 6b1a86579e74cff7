use std::path::Path;

use super::*;
use crate::disk::{Disk, DiskFile, OpenMode};

const FILE: &str = "/log/file";

/// A disk with an open file that is named durably.
fn disk(seed: u64) -> (SimulatedDisk, std::sync::Arc<dyn DiskFile>) {
    let disk = SimulatedDisk::new(seed);
    disk.create_dir_all(Path::new("/log")).unwrap();
    let file = disk.open(Path::new(FILE), OpenMode::New).unwrap();
    disk.sync_dir(Path::new("/log")).unwrap();
    (disk, file)
}

#[test]
fn what_is_synced_survives_and_the_rest_does_by_sector() {
    let (mut torn, mut lost, mut kept) = (0, 0, 0);
    for seed in 0..200 {
        let (disk, file) = disk(seed);
        file.write_all_at(&[1; 1000], 0).unwrap();
        file.sync().unwrap();
        file.write_all_at(&[2; 3000], 1000).unwrap();
        let content = disk.crash(&mut Random::new(seed)).content(Path::new(FILE)).unwrap();
        assert!(content[..1000] == [1; 1000], "seed {seed}");
        for sector in content.get(1024..).unwrap_or_default().chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0] && [0, 2].contains(byte)), "seed {seed}");
        }
        match content.iter().map(|byte| usize::from(*byte == 2)).sum::<usize>() {
            0 => lost += 1,
            3000 => kept += 1,
            _ => torn += 1,
        }
        assert!(file.write_all_at(&[3], 0).is_err(), "the old disk is off");
    }
    assert!(torn > 20 && lost > 20 && kept > 20, "torn {torn}, lost {lost}, kept {kept}");
}

#[test]
fn a_failed_sync_loses_what_reading_still_shows() {
    let mut lost = 0;
    for seed in 0..50 {
        let (disk, file) = disk(seed);
        file.write_all_at(&[1; 600], 0).unwrap();
        disk.fail_at(disk.calls(), Fault::InputOutput);
        file.sync().unwrap_err();
        file.sync().unwrap();
        assert_eq!(disk.content(Path::new(FILE)).unwrap(), [1; 600]);
        assert_eq!(disk.kill().content(Path::new(FILE)).unwrap(), [1; 600]);
        let after = disk.crash(&mut Random::new(seed)).content(Path::new(FILE)).unwrap();
        lost += usize::from(after != [1; 600]);
    }
    assert!((10..50).contains(&lost), "{lost}");
}

#[test]
fn names_that_were_not_synced_are_there_or_not() {
    let (mut there, mut gone) = (0, 0);
    for seed in 0..50 {
        let (disk, _) = disk(seed);
        let name = Path::new("/log/other");
        disk.open(name, OpenMode::New).unwrap().sync().unwrap();
        let mut random = Random::new(seed);
        match disk.kill().crash(&mut random).content(name) {
            Some(_) => there += 1,
            None => gone += 1,
        }
    }
    assert!(there > 10 && gone > 10, "{there} there, {gone} gone");
}

#[test]
fn a_full_disk_writes_what_fits_and_takes_more_once_it_has_room() {
    let (disk, file) = disk(1);
    disk.set_capacity(Some(100));
    let refused = file.write_all_at(&[1; 150], 0).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!((file.length().unwrap(), disk.used()), (100, 100));
    file.write_all_at(&[2; 100], 0).unwrap();
    disk.set_capacity(Some(150));
    file.write_all_at(&[1; 150], 0).unwrap();
}

#[test]
fn the_call_that_is_named_fails_and_after_a_halt_all_do() {
    let (disk, file) = disk(1);
    let next = disk.calls();
    disk.fail_at(next + 1, Fault::Short);
    disk.fail_at(next + 3, Fault::Halt);
    file.write_all_at(&[1; 10], 0).unwrap();
    file.write_all_at(&[2; 10], 0).unwrap();
    while !disk.is_halted() {
        drop(file.write_at(&[3; 10], 0));
    }
    assert!(file.sync().is_err() && disk.list(Path::new("/log")).is_err());
    let after = disk.kill();
    assert_eq!(after.list(Path::new("/log")).unwrap(), [Path::new(FILE)]);
    let once = Path::new("/log/LOCK");
    let held = Disk::lock(&after, once).unwrap();
    assert!(Disk::lock(&after, once).is_err());
    drop(held);
    assert!(Disk::lock(&after, once).is_ok());
}
