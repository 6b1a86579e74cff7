//! Accounts from the outside: who cannot be demoted, and what nobody may do in another's name.

use log_format::{ChangeEvent, Role, User, UserId};

use crate::requests::Planning;
use crate::testing::{root, session};
use crate::tests::{ok, open, refused};
use crate::{Engine, ErrorCode};

fn role_of(engine: &Engine, name: &str) -> Option<Role> {
    engine.user(&UserId::new(name)).unwrap().map(|user| user.role)
}

#[tokio::test]
async fn root_and_whoever_asks_keep_the_role_dba() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE USER ann WITH PASSWORD 'x' ROLE dba", &[]).await;
    let ann = session("ann", Role::Dba);
    for (by, sql) in [
        (root(), "ALTER USER root SET ROLE user"),
        (root(), "ALTER USER 'root' SET ROLE 'service'"),
        (root(), "UPDATE system.users SET role = 'user' WHERE username = 'root'"),
        (root(), "UPDATE system.users SET role = 'service'"),
        (root(), "DELETE FROM system.users"),
        (root(), "DROP USER root"),
        (ann.clone(), "ALTER USER root SET ROLE user"),
        (ann.clone(), "ALTER USER ann SET ROLE user"),
        (ann.clone(), "UPDATE system.users SET role = 'user' WHERE username = 'ann'"),
        (ann.clone(), "UPDATE system.users SET role = 'user' WHERE username IN ('ann', 'root')"),
        (ann.clone(), "DROP USER IF EXISTS root"),
        (ann.clone(), "DROP USER ann"),
        (ann.clone(), "DELETE FROM system.users WHERE username <> 'nobody'"),
    ] {
        let (code, message) = refused(&engine, &by, sql).await;
        assert_eq!(code, ErrorCode::ConstraintViolation, "{sql}: {message}");
        assert!(message.contains("another dba"), "{sql}: {message}");
    }
    assert_eq!((role_of(&engine, "root"), role_of(&engine, "ann")), (Some(Role::Dba), Some(Role::Dba)));
    // What changes no role of theirs goes through.
    ok(&engine, &root(), "ALTER USER root SET ROLE dba; ALTER USER root SET PASSWORD 'y'", &[]).await;
    ok(&engine, &root(), "UPDATE system.users SET role = role, password = 'z'", &[]).await;
    ok(&engine, &root(), "ALTER USER ann SET ROLE user; DROP USER ann", &[]).await;
}

#[tokio::test]
async fn the_last_dba_stays_whoever_takes_the_role_away() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    for name in ["ann", "bob"] {
        ok(&engine, &root(), &format!("CREATE USER {name} WITH PASSWORD 'x' ROLE dba"), &[]).await;
    }
    // A database from before the rule, whose root has been demoted.
    let demoted = move |planning: &Planning<'_>| {
        let root = planning.system.get_user(&UserId::new("root"))?.unwrap();
        Ok(vec![ChangeEvent::UserAltered(Box::new(User { role: Role::User, ..root }))])
    };
    engine.commits().catalog(demoted).await.unwrap();
    // Both at once: each is checked where commits are put in order, so whoever comes second is refused.
    let (mut ann, mut bob) = (session("ann", Role::Dba), session("bob", Role::Dba));
    let (first, second) = tokio::join!(
        engine.execute(&mut ann, "ALTER USER bob SET ROLE user", &[]),
        engine.execute(&mut bob, "UPDATE system.users SET role = 'service' WHERE username = 'ann'", &[]),
    );
    let refusals = [first.error, second.error].into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(refusals[0].code(), ErrorCode::ConstraintViolation);
    assert!(refusals[0].to_string().contains("another user the role dba first"), "{}", refusals[0]);
    let dbas = engine.users().unwrap().into_iter().filter(|user| user.role == Role::Dba).count();
    assert_eq!(dbas, 1);
    // Somebody whose account is none of them, as the command line.
    let operator = session("nobody", Role::Dba);
    for sql in [
        "UPDATE system.users SET role = 'user' WHERE username <> 'root'",
        "DELETE FROM system.users WHERE username <> 'root'",
    ] {
        let (code, _) = refused(&engine, &operator, sql).await;
        assert_eq!(code, ErrorCode::ConstraintViolation, "{sql}");
    }
    ok(&engine, &operator, "ALTER USER root SET ROLE dba", &[]).await;
}

#[tokio::test]
async fn nobody_changes_system_tables_in_anothers_name() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE USER ann WITH PASSWORD 'x' ROLE dba", &[]).await;
    let service = session("svc", Role::Service);
    for sql in [
        "EXECUTE AS USER 'ann' (INSERT INTO system.users (username, password) VALUES ('eve', 'x'))",
        "EXECUTE AS USER 'ann' (UPDATE system.users SET role = 'dba' WHERE username = 'svc')",
        "EXECUTE AS USER 'ann' (DELETE FROM system.users WHERE username = 'ann')",
        "EXECUTE AS USER 'ann' (INSERT INTO system.storage_locations (location_name, location_type, path) \
         VALUES ('x', 'filesystem', '/tmp/x'))",
        "EXECUTE AS USER 'ann' (ALTER USER ann SET PASSWORD 'taken')",
    ] {
        for by in [root(), service.clone()] {
            let (code, message) = refused(&engine, &by, sql).await;
            let expected = [ErrorCode::Unsupported, ErrorCode::PermissionDenied];
            assert!(expected.contains(&code), "{sql}: {code:?} {message}");
        }
    }
    assert!(engine.authenticate("ann", "x").is_ok(), "nobody has taken the account over");
    ok(&engine, &root(), "EXECUTE AS USER 'ann' (SELECT username FROM system.users)", &[]).await;
}
