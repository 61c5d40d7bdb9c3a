//! Migrate: looks at the server, and brings the schema up to date.

use crate::config::PostgresConfig;
use crate::error::OpenError;
use crate::io::connect::connect;
use crate::io::fault::describe;
use crate::logic::migrations::{KNOWN, lock, plan};
use tokio_postgres::{Client, Transaction};

/// The oldest server that has what is used here.
const OLDEST: u32 = 13;

/// Checks the server and makes the schema what this program needs.
pub(crate) async fn prepare(config: &PostgresConfig) -> Result<(), OpenError> {
    config.check()?;
    let connected = connect(config, None).await;
    let mut client = connected.map_err(|reason| OpenError::Connect {
        server: config.server_name(),
        reason,
    })?;
    let settings = settings(&client)
        .await
        .map_err(|error| refused(config, &error))?;
    if settings.major < OLDEST {
        return Err(OpenError::OldServer {
            found: settings.major,
            oldest: OLDEST,
        });
    }
    for (name, value) in [
        ("fsync", settings.fsync),
        ("full_page_writes", settings.full_page_writes),
    ] {
        if value == "off" {
            tracing::warn!(
                setting = name,
                "the server runs with this off: what it acknowledges may be lost when its machine fails"
            );
        }
    }
    let found = found(&client, config)
        .await
        .map_err(|error| refused(config, &error))?;
    if found == KNOWN {
        return Ok(());
    }
    if found < KNOWN && !config.migrate {
        return Err(OpenError::NotMigrated {
            schema: config.schema.clone(),
            found,
            needed: KNOWN,
        });
    }
    if found < KNOWN {
        migrate(&mut client, config)
            .await
            .map_err(|error| refused(config, &error))?;
    }
    // Another process may have been here meanwhile, also a newer one.
    match self::found(&client, config).await {
        Ok(KNOWN) => Ok(()),
        Ok(found) => Err(OpenError::NewerSchema {
            schema: config.schema.clone(),
            found,
            known: KNOWN,
        }),
        Err(error) => Err(refused(config, &error)),
    }
}

struct Settings {
    major: u32,
    fsync: String,
    full_page_writes: String,
}

async fn settings(client: &Client) -> Result<Settings, tokio_postgres::Error> {
    let sql = "SELECT current_setting('server_version_num')::integer / 10000, \
               current_setting('fsync'), current_setting('full_page_writes')";
    let row = client.query_one(sql, &[]).await?;
    Ok(Settings {
        major: row.try_get::<_, i32>(0)?.try_into().unwrap_or_default(),
        fsync: row.try_get(1)?,
        full_page_writes: row.try_get(2)?,
    })
}

/// The version of the schema; 0 if there is none.
async fn found(client: &Client, config: &PostgresConfig) -> Result<u32, tokio_postgres::Error> {
    let table = format!("\"{}\".migrations", config.schema);
    let there = client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&table])
        .await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let row = client
        .query_one(&format!("SELECT max(version) FROM {table}"), &[])
        .await?;
    let version: Option<i32> = row.try_get(0)?;
    Ok(version.unwrap_or_default().try_into().unwrap_or_default())
}

/// All steps that are missing, in one transaction.
async fn migrate(
    client: &mut Client,
    config: &PostgresConfig,
) -> Result<(), tokio_postgres::Error> {
    let schema = &config.schema;
    // Others wait here for as long as the migration takes. The lock goes with the connection, and is
    // taken before the transaction begins: one that has begun may not see what another did meanwhile.
    let lock = lock(schema, "migrations");
    let begin =
        format!("SET lock_timeout = 0; SET statement_timeout = 0; SELECT pg_advisory_lock({lock})");
    client.batch_execute(&begin).await?;
    let transaction = client.transaction().await?;
    let found = found(transaction.client(), config).await?;
    // Not `IF NOT EXISTS` alone: that needs the right to make one also when it is there.
    let there = transaction
        .query_one(
            "SELECT to_regnamespace($1) IS NOT NULL",
            &[&format!("\"{schema}\"")],
        )
        .await?;
    if !there.try_get::<_, bool>(0)? {
        transaction
            .batch_execute(&format!("CREATE SCHEMA \"{schema}\""))
            .await?;
    }
    transaction
        .batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS \"{schema}\".migrations (\
             version integer PRIMARY KEY, program text NOT NULL, at timestamptz NOT NULL DEFAULT now())"
        ))
        .await?;
    for (version, statements) in plan(found, schema).unwrap_or_default() {
        step(&transaction, config, version, &statements).await?;
        tracing::info!(schema, version, "the schema was migrated");
    }
    transaction.commit().await
}

async fn step(
    transaction: &Transaction<'_>,
    config: &PostgresConfig,
    version: u32,
    statements: &str,
) -> Result<(), tokio_postgres::Error> {
    transaction.batch_execute(statements).await?;
    let note = format!(
        "INSERT INTO \"{}\".migrations (version, program) VALUES ($1, $2)",
        config.schema
    );
    let version = version.cast_signed();
    transaction
        .execute(&note, &[&version, &env!("CARGO_PKG_VERSION")])
        .await?;
    Ok(())
}

fn refused(config: &PostgresConfig, error: &tokio_postgres::Error) -> OpenError {
    OpenError::Schema {
        schema: config.schema.clone(),
        reason: describe(error),
    }
}
