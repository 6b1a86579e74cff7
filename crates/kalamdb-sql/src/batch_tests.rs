use super::*;
use crate::testing::{job, namespace, open, schema, storage_location, table, user, write};
use log_format::{JobStatus, Role, SchemaVersion};

#[test]
fn namespaces_are_inserted_updated_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    let (app, shop) = (namespace("app", 1), namespace("shop", 1));
    write(&system, |batch| batch.insert_namespace(&shop));
    write(&system, |batch| batch.insert_namespace(&app));
    assert_eq!(system.get_namespace(&app.id).unwrap(), Some(app.clone()));
    assert_eq!(system.get_namespace(&NamespaceId::new("ap")).unwrap(), None);
    assert_eq!(system.scan_all_namespaces().unwrap(), [app.clone(), shop.clone()]);

    let changed = namespace("app", 2);
    write(&system, |batch| batch.update_namespace(&changed));
    assert_eq!(system.get_namespace(&app.id).unwrap(), Some(changed));
    write(&system, |batch| batch.delete_namespace(&app.id));
    assert_eq!(system.get_namespace(&app.id).unwrap(), None);
    assert_eq!(system.scan_all_namespaces().unwrap(), [shop]);
}

#[test]
fn tables_are_inserted_updated_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    // Ids whose order as text, or in little-endian bytes, would be another one.
    let ids = [1, 2, 10, 255, 256];
    for id in ids {
        write(&system, |batch| batch.insert_table(&table(id, 1)));
    }
    assert_eq!(system.scan_all_tables().unwrap(), ids.map(|id| table(id, 1)));
    assert_eq!(system.get_table(TableId::new(10)).unwrap(), Some(table(10, 1)));
    assert_eq!(system.get_table(TableId::new(3)).unwrap(), None);

    write(&system, |batch| batch.update_table(&table(10, 2)));
    assert_eq!(system.get_table(TableId::new(10)).unwrap(), Some(table(10, 2)));
    write(&system, |batch| batch.delete_table(TableId::new(10)));
    assert_eq!(system.get_table(TableId::new(10)).unwrap(), None);
    assert_eq!(system.scan_all_tables().unwrap(), [1, 2, 255, 256].map(|id| table(id, 1)));
}

#[test]
fn schema_versions_are_inserted_and_deleted_by_table() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    for (id, version) in [(256, 1), (1, 2), (1, 1), (2, 1), (1, 300), (0, 1)] {
        write(&system, |batch| batch.insert_table_schema(&schema(id, version)));
    }
    let versions = |id: u64| {
        let schemas = system.get_table_schemas_for_table(TableId::new(id)).unwrap();
        schemas.into_iter().map(|schema| schema.version.get()).collect::<Vec<_>>()
    };
    assert_eq!(versions(1), [1, 2, 300], "oldest first");
    assert_eq!(system.get_table_schemas_for_table(TableId::new(1)).unwrap()[1], schema(1, 2));
    assert_eq!(versions(3), [] as [u32; 0]);
    let all = system.scan_all_table_schemas().unwrap();
    let places: Vec<_> = all.iter().map(|schema| (schema.table.get(), schema.version)).collect();
    let expected = [(0, 1), (1, 1), (1, 2), (1, 300), (2, 1), (256, 1)];
    assert_eq!(places, expected.map(|(id, version)| (id, SchemaVersion::new(version))));

    write(&system, |batch| batch.delete_table_schemas_for_table(TableId::new(1)));
    assert_eq!([versions(0), versions(1), versions(2), versions(256)], [vec![1], vec![], vec![1], vec![1]]);
}

#[test]
fn users_are_inserted_updated_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    let (ann, root) = (user("ann", Role::User), user("root", Role::Dba));
    write(&system, |batch| batch.insert_user(&root));
    write(&system, |batch| batch.insert_user(&ann));
    assert_eq!(system.get_user(&ann.id).unwrap(), Some(ann.clone()));
    assert_eq!(system.get_user(&UserId::new("Ann")).unwrap(), None);
    assert_eq!(system.scan_all_users().unwrap(), [ann.clone(), root.clone()]);

    let promoted = user("ann", Role::Service);
    write(&system, |batch| batch.update_user(&promoted));
    assert_eq!(system.get_user(&ann.id).unwrap(), Some(promoted));
    write(&system, |batch| batch.delete_user(&ann.id));
    assert_eq!(system.scan_all_users().unwrap(), [root]);
}

#[test]
fn storage_locations_are_inserted_updated_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    write(&system, |batch| batch.insert_storage_location(&storage_location("local", 0)));
    write(&system, |batch| batch.insert_storage_location(&storage_location("far", 0)));
    assert_eq!(system.get_storage_location("local").unwrap(), Some(storage_location("local", 0)));
    assert_eq!(system.get_storage_location("loca").unwrap(), None);

    write(&system, |batch| batch.update_storage_location(&storage_location("local", 3)));
    let all = system.scan_all_storage_locations().unwrap();
    assert_eq!(all, [storage_location("far", 0), storage_location("local", 3)]);
    write(&system, |batch| batch.delete_storage_location("far"));
    assert_eq!(system.scan_all_storage_locations().unwrap(), [storage_location("local", 3)]);
}

#[test]
fn jobs_are_inserted_updated_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    write(&system, |batch| batch.insert_job(&job("b", JobStatus::Queued)));
    write(&system, |batch| batch.insert_job(&job("a", JobStatus::Queued)));
    assert_eq!(system.scan_all_jobs().unwrap(), [job("a", JobStatus::Queued), job("b", JobStatus::Queued)]);
    write(&system, |batch| batch.update_job(&job("b", JobStatus::Completed)));
    assert_eq!(
        system.scan_all_jobs().unwrap(),
        [job("a", JobStatus::Queued), job("b", JobStatus::Completed)]
    );
    assert_eq!(
        system.get_job(&job("b", JobStatus::Queued).id).unwrap(),
        Some(job("b", JobStatus::Completed))
    );
    write(&system, |batch| batch.delete_job(&job("a", JobStatus::Queued).id));
    assert_eq!(system.scan_all_jobs().unwrap(), [job("b", JobStatus::Completed)]);
}
