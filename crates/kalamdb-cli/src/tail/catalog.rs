//! Names of tables and columns, as the log tells them. The engine's crate owns how; this is its name here.

pub(crate) use kalamdb_core::ChangeNames as Catalog;
