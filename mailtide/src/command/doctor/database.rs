//! Postgres: the server, the schema, the token keys, the clock.

use store::inspect::{self, Examined, Migrations, Server, Use};
use store::{Error, Store};

use super::finding::Finding;
use super::google;
use crate::command::now;
use crate::settings::Settings;

const AREA: &str = "postgres";

/// The oldest version that its makers still mend; what we ask of it is older.
const OLDEST: i32 = 140_000;

/// Connections that are left to others at least.
const OTHERS: i32 = 10;

/// Looks at the database of the settings.
pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let store = match Store::connect(&settings.store) {
        Ok(store) => store,
        Err(error) => return vec![away(&error)],
    };
    let asked = now();
    let server = match inspect::server(&store).await {
        Ok(server) => server,
        Err(error) => return vec![away(&error)],
    };
    // The server looked at its clock somewhere between.
    let between = asked + domain::Duration::from_millis(now().since(asked).as_millis() / 2);
    let mut findings = of_server(&server, settings);
    findings.push(google::of_clock("Postgres", server.clock, between));
    findings.extend(of_schema(&store, settings, &server).await);
    findings
}

fn away(error: &Error) -> Finding {
    let remedy = "start Postgres, or set DATABASE_URL (database.url) to where it is, with a user that it lets in";
    Finding::fail(AREA, "server", error.to_string(), remedy)
}

fn of_server(server: &Server, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if server.version_number < OLDEST {
        let found = format!("version {}, which is mended no more", server.version);
        findings.push(Finding::warn(AREA, "server", found, "upgrade to 14 or later"));
    }
    if server.is_standby {
        let remedy = "set DATABASE_URL to the primary, or to all with target_session_attrs=read-write";
        findings.push(Finding::fail(AREA, "server", "it is a standby and takes no writes", remedy));
    }
    let ours = i32::from(settings.store.max_connections);
    if server.max_connections < ours + OTHERS {
        let found =
            format!("it takes {} connections, and each process of ours may open {ours}", server.max_connections);
        let remedy = "raise max_connections of the server, or lower database.max_connections";
        findings.push(Finding::warn(AREA, "connections", found, remedy));
    }
    if server.may_create == Some(false) {
        let found = "the user may not create in the schema, so no migration can be made";
        let remedy = format!("GRANT CREATE ON SCHEMA {} TO the user of database.url", settings.store.schema);
        findings.push(Finding::fail(AREA, "rights", found, remedy));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, "server", format!("version {}, takes writes", server.version)));
    }
    findings
}

async fn of_schema(store: &Store, settings: &Settings, server: &Server) -> Vec<Finding> {
    let migrations = match inspect::migrations(store).await {
        Ok(migrations) => migrations,
        Err(error) => return vec![away(&error)],
    };
    let mut findings = of_migrations(&migrations, &settings.store.schema, server.may_create.is_some());
    // The tables that the keys are compared with come with the first migration.
    if migrations.applied > 0 && migrations.changed.is_empty() {
        match inspect::token_keys(store).await {
            Ok(Some(examined)) => findings.extend(of_keys(&examined)),
            // That none is set is told with the settings.
            Ok(None) => {}
            Err(_) if !migrations.pending.is_empty() => {}
            Err(error) => findings.push(away(&error)),
        }
    }
    findings
}

fn of_migrations(migrations: &Migrations, schema: &str, is_there: bool) -> Vec<Finding> {
    const CHECK: &str = "migrations";
    let Migrations { applied, pending, unknown, changed } = migrations;
    let mut findings = Vec::new();
    if !changed.is_empty() {
        findings.push(Finding::fail(
            AREA,
            CHECK,
            format!("schema {schema} has others under the numbers of {}", changed.join(", ")),
            "is it another program's schema, or one of a build that was never released? Set database.schema to another",
        ));
    }
    if !is_there || *applied == 0 && changed.is_empty() {
        let found = format!("schema {schema} is empty");
        findings.push(Finding::fail(AREA, CHECK, found, "start a service: each brings the schema up to date first"));
    } else if !pending.is_empty() {
        findings.push(Finding::fail(
            AREA,
            CHECK,
            format!("schema {schema} is that of an older version; to be made are {}", pending.join(", ")),
            "start a service of this version: each brings the schema up to date first, and older ones go on with it",
        ));
    }
    if !unknown.is_empty() {
        findings.push(Finding::warn(
            AREA,
            CHECK,
            format!("a later version has brought schema {schema} further: {}", unknown.join(", ")),
            "that is well while an upgrade goes on; else upgrade this one, too",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, CHECK, format!("schema {schema} is up to date, with {applied}")));
    }
    findings
}

fn of_keys(examined: &Examined) -> Vec<Finding> {
    const CHECK: &str = "token keys";
    let mut findings: Vec<Finding> = Vec::new();
    for (id, is_used) in &examined.keys {
        findings.push(match is_used {
            Use::Fresh => Finding::ok(AREA, CHECK, format!("key {id} was not used here yet")),
            Use::Opens { tokens } => {
                Finding::ok(AREA, CHECK, format!("key {id} opens what it sealed, {tokens} refresh tokens tried"))
            }
            Use::Wrong(reason) => Finding::fail(
                AREA,
                CHECK,
                reason.to_string(),
                format!(
                    "set store.token_key to the {id} that was there before; mailboxes whose key is lost have to be \
                         connected again"
                ),
            ),
        });
    }
    if let Some(id) = &examined.missing {
        findings.push(Finding::fail(
            AREA,
            CHECK,
            format!("something lies under key {id}, which store.token_key does not have"),
            format!("add {id} behind the first, run mailtide tokens rotate, then take it out again"),
        ));
    }
    findings
}
