//! Backups: directories from which a namespace can be made anew, in this database or in another one.
//!
//! A backup is what the log says, for one namespace: a full part has the events that would make the namespace as of one seq, a part
//! of changes has the commits since the part before it. Each part is one file of frames as the log has them, packed; the list of
//! parts, [`BackupList`], is a file beside them that is replaced as a whole once a part is durable. So a backup that dies leaves
//! what was there, and a restore can stop at any commit that a part of changes has.
//!
//! The jobs that write and read them stand in [`crate::jobs`], the statements in [`crate::sql`]. Nothing here knows the engine.

mod list;
mod part;

#[cfg(test)]
pub(crate) use self::list::text_of_time;
pub(crate) use self::list::{BackupList, Part, PartKind, Until, make_directory};
pub(crate) use self::part::{PartReader, PartWriter, WrittenPart, file_of};
