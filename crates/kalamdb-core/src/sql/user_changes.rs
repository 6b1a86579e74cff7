//! What may become of an account: checked and made into events here, whichever statement asks for it.

use std::collections::BTreeSet;

use log_format::{ChangeEvent, Role, User, UserId};
use serde_json::Value as Json;

use crate::accounts;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::live::Endings;
use crate::requests::Planning;
use crate::session::Session;
use crate::sql::system_rows::Edit;

/// A new account.
pub(super) struct NewUser {
    pub(super) id: UserId,
    pub(super) role: Role,
    pub(super) password_hash: String,
    pub(super) metadata: Option<String>,
}

/// What changes of an account; none stays as it is.
#[derive(Default)]
pub(super) struct UserEdit {
    pub(super) password_hash: Option<String>,
    pub(super) role: Option<Role>,
    pub(super) metadata: Edit,
}

/// The role of this name.
pub(super) fn role_of(name: &str) -> Result<Role> {
    match name.to_lowercase().as_str() {
        "user" => Ok(Role::User),
        "service" => Ok(Role::Service),
        "dba" => Ok(Role::Dba),
        _ => Err(Error::definition(format!("there is no role {name}; the roles are user, service and dba"))),
    }
}

/// Metadata is JSON.
pub(super) fn check_metadata(metadata: Option<&str>) -> Result<()> {
    let Some(text) = metadata else { return Ok(()) };
    let parsed: Result<Json, _> = serde_json::from_str(text);
    parsed.map(drop).map_err(|error| Error::definition(format!("the metadata of a user is JSON: {error}")))
}

/// Refuses to drop those who must stay.
pub(super) fn check_drop(session: &Session, name: &str) -> Result<()> {
    refuse_if_needed(session.user(), name, "dropped")
}

/// Refuses to take the role dba from those who must keep it.
pub(super) fn check_role(session: &Session, name: &str, role: Role) -> Result<()> {
    if role == Role::Dba {
        return Ok(());
    }
    refuse_if_needed(session.user(), name, "given a lower role")
}

fn refuse_if_needed(asking: &UserId, name: &str, action: &'static str) -> Result<()> {
    if name != accounts::ROOT && name != asking.as_str() {
        return Ok(());
    }
    Err(Error::InUse {
        what: format!("user {name}"),
        action,
        reason: "root, and whoever is asking, stay as they are, so that a dba is left; let another dba do it, and for root set \
                 a password that nobody knows"
            .to_owned(),
    })
}

/// Refuses a commit after which nobody would be a dba: nobody could make one again.
pub(super) fn require_dba_left(planning: &Planning<'_>, events: &[ChangeEvent]) -> Result<()> {
    let takes_away = |event: &ChangeEvent| match event {
        ChangeEvent::UserAltered(user) => user.role != Role::Dba,
        ChangeEvent::UserDropped(_) => true,
        _ => false,
    };
    if !events.iter().any(takes_away) {
        return Ok(());
    }
    let users = planning.system.scan_all_users()?;
    let mut dbas: BTreeSet<&UserId> =
        users.iter().filter(|user| user.role == Role::Dba).map(|user| &user.id).collect();
    let had_any = !dbas.is_empty();
    for event in events {
        match event {
            ChangeEvent::UserCreated(user) | ChangeEvent::UserAltered(user) if user.role == Role::Dba => {
                dbas.insert(&user.id);
            }
            ChangeEvent::UserAltered(user) => {
                dbas.remove(&user.id);
            }
            ChangeEvent::UserDropped(id) => {
                dbas.remove(id.as_ref());
            }
            _ => {}
        }
    }
    if had_any && dbas.is_empty() {
        return Err(Error::InUse {
            what: "the last dba".to_owned(),
            action: "dropped or given a lower role",
            reason: "nobody could create users or dbas then; give another user the role dba first".to_owned(),
        });
    }
    Ok(())
}

pub(super) fn plan_create(planning: &Planning<'_>, new: NewUser) -> Result<ChangeEvent> {
    let NewUser { id, role, password_hash, metadata } = new;
    if planning.system.get_user(&id)?.is_some() {
        return Err(Error::AlreadyExists { kind: "user", name: id.to_string() });
    }
    let (created_at, updated_at) = (planning.now, planning.now);
    Ok(ChangeEvent::UserCreated(Box::new(User { id, role, password_hash, metadata, created_at, updated_at })))
}

pub(super) fn plan_alter(planning: &Planning<'_>, id: &UserId, edit: UserEdit) -> Result<ChangeEvent> {
    let mut user = existing(planning, id)?;
    user.password_hash = edit.password_hash.unwrap_or(user.password_hash);
    user.role = edit.role.unwrap_or(user.role);
    user.metadata = edit.metadata.of(user.metadata);
    user.updated_at = planning.now;
    Ok(ChangeEvent::UserAltered(Box::new(user)))
}

pub(super) fn plan_drop(planning: &Planning<'_>, id: UserId) -> Result<ChangeEvent> {
    existing(planning, &id)?;
    Ok(ChangeEvent::UserDropped(Box::new(id)))
}

/// Ends the live queries of a user who is gone, or that were begun with another role than they have.
pub(super) fn end_what_is_open(engine: &Engine, id: &UserId) -> Result<()> {
    let role = engine.user(id)?.map(|user| user.role);
    let ended = Endings::end_of_user(engine, id, role);
    if ended > 0 {
        tracing::info!(user = %id, ended, "ended the live queries of a user who changed");
    }
    Ok(())
}

fn existing(planning: &Planning<'_>, id: &UserId) -> Result<User> {
    let found = planning.system.get_user(id)?;
    found.ok_or_else(|| Error::NotFound { kind: "user", name: id.to_string() })
}
