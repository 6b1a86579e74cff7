//! `kalamdb serve`: opens a database and serves it until it is told to stop.
//!
//! Arguments go in two steps: flags and a file become [`Settings`], and only those are acted on. The one line on stdout says
//! where it listens, once it does; all else goes to stderr.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kalamdb_core::format::FlushPolicy;
use kalamdb_core::log::{Durability, Retention};
use kalamdb_core::{
    Engine, EngineOptions, FlushOptions, LocationClaim, parse_duration_ms, parse_flush_policy,
};
use kalamdb_server::ServerConfig;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const ROOT_PASSWORD_VARIABLE: &str = "KALAMDB_ROOT_PASSWORD";
const DEFAULT_DATA_DIR: &str = "./kalamdb-data";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2900);
/// Of every thread that may plan a statement: the deepest one that the engine lets through fits.
const STACK_BYTES: usize = 16 << 20;
const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);

/// Serve a database over HTTP and WebSocket.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ServeArgs {
    /// Where the database is; made if it is not there [default: ./kalamdb-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen; port 0 picks a free one [default: 127.0.0.1:2900]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A TOML file with any of `data_dir`, `listen`, `durability`, `log_retention_age`,
    /// `log_retention_size`, `flush_policy`, `hot_size_max` and a table `[server]` of limits; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// When a write is acknowledged: `always` (the disk has it), `interval` or `interval:MILLISECONDS` (the disk gets it
    /// within that time), `os` (the operating system has it) [default: always]
    #[arg(long, value_name = "MODE")]
    durability: Option<DurabilityMode>,
    /// Let go of log segments whose last commit is older: `12h`, `7d` [default: keep them]
    #[arg(long, value_name = "DURATION")]
    log_retention_age: Option<RetentionAge>,
    /// Let go of the oldest log segments while all have more bytes: `500MiB`, `20GiB` [default: keep them]
    #[arg(long, value_name = "SIZE")]
    log_retention_size: Option<Size>,
    /// When rows of tables without a policy of their own move to Parquet files: `rows:10000`, `interval:5m`, or both with a
    /// comma between [default: never]
    #[arg(long, value_name = "POLICY")]
    flush_policy: Option<PolicyText>,
    /// Flush the greatest tables while the hot tier has more bytes of rows: `4GiB` [default: any]
    #[arg(long, value_name = "SIZE")]
    hot_size_max: Option<Size>,
    /// Become the owner of every storage location that another instance of this database owns, as after this directory
    /// was copied to where it is. Only where that other one is gone for good
    #[arg(long)]
    take_over_locations: bool,
}

/// A [`Durability`], as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DurabilityMode(Durability);

impl FromStr for DurabilityMode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let durability = match text.split_once(':') {
            None if text == "always" => Durability::Always,
            None if text == "os" => Durability::Os,
            None if text == "interval" => Durability::Interval(DEFAULT_INTERVAL),
            Some(("interval", milliseconds)) => {
                let milliseconds: u64 =
                    milliseconds.parse().context("interval:MILLISECONDS takes a number")?;
                Durability::Interval(Duration::from_millis(milliseconds.max(1)))
            }
            _ => bail!("it is always, interval, interval:MILLISECONDS or os"),
        };
        Ok(Self(durability))
    }
}

/// A duration, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RetentionAge(Duration);

impl FromStr for RetentionAge {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ms =
            parse_duration_ms(text).filter(|ms| *ms > 0).context("it is a duration: 90s, 30m, 12h or 7d")?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

/// A number of bytes, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size(u64);

impl FromStr for Size {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim() {
            "KiB" => Some(10),
            "MiB" => Some(20),
            "GiB" => Some(30),
            "TiB" => Some(40),
            _ => None,
        };
        let bytes = shift.and_then(|shift| number.parse::<u64>().ok()?.checked_mul(1 << shift));
        Ok(Self(bytes.filter(|bytes| *bytes > 0).context("it is a size: 500MiB, 20GiB or 1TiB")?))
    }
}

/// A flush policy, as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PolicyText(FlushPolicy);

impl FromStr for PolicyText {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(parse_flush_policy(text)?))
    }
}

/// A value of the file in the form of the flag of its name.
fn parsed<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err = anyhow::Error>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

/// The file. A key that is not known is refused: a limit that is misspelt must not be a limit that is not there.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    #[serde(deserialize_with = "parsed")]
    durability: Option<DurabilityMode>,
    #[serde(deserialize_with = "parsed")]
    log_retention_age: Option<RetentionAge>,
    #[serde(deserialize_with = "parsed")]
    log_retention_size: Option<Size>,
    #[serde(deserialize_with = "parsed")]
    flush_policy: Option<PolicyText>,
    #[serde(deserialize_with = "parsed")]
    hot_size_max: Option<Size>,
    server: ServerConfig,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    data_dir: PathBuf,
    listen: SocketAddr,
    durability: Durability,
    retention: Retention,
    flush: FlushOptions,
    location_claim: LocationClaim,
    server: ServerConfig,
}

impl Settings {
    fn new(args: &ServeArgs) -> anyhow::Result<Self> {
        let file = args.config.as_deref().map(read_config).transpose()?.unwrap_or_default();
        let durability = args.durability.or(file.durability).map_or(Durability::Always, |mode| mode.0);
        let data_dir = args.data_dir.clone().or(file.data_dir).unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let listen = args.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN);
        let retention = Retention {
            age: args.log_retention_age.or(file.log_retention_age).map(|age| age.0),
            bytes: args.log_retention_size.or(file.log_retention_size).map(|size| size.0),
        };
        let flush = FlushOptions {
            policy: args.flush_policy.clone().or(file.flush_policy).map(|policy| policy.0),
            hot_bytes_max: args.hot_size_max.or(file.hot_size_max).map(|size| size.0),
        };
        let location_claim = if args.take_over_locations { LocationClaim::Any } else { LocationClaim::Free };
        Ok(Self { data_dir, listen, durability, retention, flush, location_claim, server: file.server })
    }
}

fn read_config(path: &Path) -> anyhow::Result<ConfigFile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in {}", path.display()))
}

/// Serves until SIGINT or SIGTERM.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::new(args)?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "file descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of file descriptors stays as it is"),
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()?;
    // Before the engine is opened: an address that is taken should not cost a recovery.
    let listener = runtime
        .block_on(TcpListener::bind(settings.listen))
        .with_context(|| format!("can't listen on {}", settings.listen))?;
    let engine = open(&settings)?;
    let served = runtime.block_on(serve(listener, engine.clone(), settings.server));
    // Tasks that were cut off let go of the engine.
    drop(runtime);
    let failure = engine.failure();
    engine.close();
    served?;
    if let Some(reason) = failure {
        bail!("the database had become read-only: {reason}");
    }
    tracing::info!("closed");
    Ok(ExitCode::SUCCESS)
}

fn open(settings: &Settings) -> anyhow::Result<Engine> {
    let options = EngineOptions {
        durability: settings.durability,
        retention: settings.retention,
        flush: settings.flush.clone(),
        location_claim: settings.location_claim,
        root_password: std::env::var(ROOT_PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty()),
        ..EngineOptions::new(&settings.data_dir)
    };
    let (engine, opened) =
        Engine::open(options).with_context(|| format!("can't open {}", settings.data_dir.display()))?;
    tracing::info!(
        data_dir = %settings.data_dir.display(),
        durability = ?settings.durability,
        replayed_commits = opened.replayed.commits,
        replayed_bytes = opened.replayed.bytes,
        replay_ms = opened.replayed.took.as_millis(),
        "opened"
    );
    if let Some(password) = opened.root_password {
        let mut stderr = std::io::stderr().lock();
        writeln!(stderr, "The password of root, shown this once: {password}")?;
    }
    Ok(engine)
}

async fn serve(listener: TcpListener, engine: Engine, config: ServerConfig) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let address = listener.local_addr()?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "KalamDB is ready at http://{address}")?;
    stdout.flush()?;
    drop(stdout);
    let shutdown = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    kalamdb_server::serve(listener, engine, config, shutdown).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: &str, args: ServeArgs) -> anyhow::Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kalamdb.toml");
        std::fs::write(&path, file).unwrap();
        Settings::new(&ServeArgs { config: Some(path), ..args })
    }

    #[test]
    fn without_anything_the_defaults_hold() {
        let settings = Settings::new(&ServeArgs::default()).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:2900");
        assert_eq!(settings.data_dir, Path::new("./kalamdb-data"));
        assert_eq!((settings.durability, settings.server), (Durability::Always, ServerConfig::default()));
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = "listen = \"127.0.0.1:1\"\ndurability = \"interval:7\"\nlog_retention_age = \"36h\"\n\
                    log_retention_size = \"3GiB\"\nflush_policy = \"rows:9\"\nhot_size_max = \"1MiB\"\n[server]\nsubscriptions_max = 3\n";
        let from_file = settings(file, ServeArgs::default()).unwrap();
        assert_eq!(from_file.listen.port(), 1);
        assert_eq!(from_file.durability, Durability::Interval(Duration::from_millis(7)));
        assert_eq!(from_file.server.subscriptions_max, 3);
        let kept = Retention { age: Some(Duration::from_hours(36)), bytes: Some(3 << 30) };
        assert_eq!(from_file.retention, kept);
        assert_eq!(from_file.flush.policy.as_ref().and_then(|policy| policy.rows), Some(9));
        assert_eq!(from_file.flush.hot_bytes_max, Some(1 << 20));
        let flags = ServeArgs {
            listen: Some("127.0.0.1:2".parse().unwrap()),
            durability: Some("os".parse().unwrap()),
            ..ServeArgs::default()
        };
        let settings = settings(file, flags).unwrap();
        assert_eq!((settings.listen.port(), settings.durability), (2, Durability::Os));
    }

    #[test]
    fn unknown_keys_and_values_are_refused_by_name() {
        for (file, named) in [
            ("lissten = \"127.0.0.1:1\"", "lissten"),
            ("[server]\nsubscription_max = 3", "subscription_max"),
            ("durability = \"sometimes\"", "always, interval"),
            ("log_retention_age = \"soon\"", "7d"),
            ("log_retention_size = \"10GB\"", "20GiB"),
            ("flush_policy = \"often\"", "rows:10000"),
        ] {
            let error = format!("{:#}", settings(file, ServeArgs::default()).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
