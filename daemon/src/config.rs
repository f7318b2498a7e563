//! What `baton serve` is told: flags over environment over file over defaults, checked once, with every problem named.
//! Nothing is bound here, and no file is opened but those that are settings.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use baton_core::id::{InstanceId, NodeId};
use serde::Deserialize;

use crate::effects::{HookConfig, Secret};
use crate::prober::{ProbeConfig, read_ca_file};

/// The port of the API where none is said.
const API_PORT: u16 = 7400;
/// The port for peers where none is said.
const PEER_PORT: u16 = 7401;
/// What is logged where nothing is said: Raft tells of each vote at `info`, which drowns what an operator looks for.
const LOG_DEFAULT: &str = "info,openraft=warn";
/// A configuration file larger than this is not one.
const FILE_MAX: u64 = 1 << 20;
/// A secret's file larger than this is not one: a secret of the greatest length and the end of its line fit.
const SECRET_FILE_MAX: u64 = 2_048;
/// The most local commands of a kind. Each is written by hand; more of them are a mistake of whoever generated the file.
const AGENTS_MAX: usize = 100;

/// The flags of `baton serve`. Each is also a key of the file (`node_id`, `data_dir`, …) and a variable `BATON_…`.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServeArgs {
    /// Read settings from this TOML file; flags and BATON_* win over it
    #[arg(long, value_name = "FILE", env = "BATON_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// This node's number, from 1; never change it and never give it to another node [default: 1]
    #[arg(long, value_name = "N", env = "BATON_NODE_ID")]
    pub node_id: Option<NodeId>,
    /// Where this node keeps its two databases; created if missing
    #[arg(long, value_name = "DIR", env = "BATON_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where clients find the API [default: 127.0.0.1:7400]
    #[arg(long, value_name = "IP:PORT", env = "BATON_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Where the other nodes find this one [default: 127.0.0.1:7401]
    #[arg(long, value_name = "IP:PORT", env = "BATON_PEER_LISTEN")]
    pub peer_listen: Option<SocketAddr>,
    /// All nodes of a new cluster and where they listen for peers, the same on each: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT.
    /// Without it this node is a cluster of one. Has no effect once the cluster exists
    #[arg(long, value_name = "LIST", env = "BATON_INITIAL_CLUSTER")]
    pub initial_cluster: Option<String>,
    /// Host names under which browsers may call the API, beside IP addresses and localhost; separated by commas
    #[arg(long, value_name = "NAMES", env = "BATON_ALLOWED_HOSTS")]
    pub allowed_hosts: Option<String>,
    /// Listen beyond loopback although this version has neither TLS nor access tokens: whoever reaches the ports rules
    #[arg(long, env = "BATON_INSECURE", num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub insecure: Option<bool>,
    /// How log lines are written: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "BATON_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged, as in "info" or "baton=debug" [default: info, without Raft's own lines]
    #[arg(long, value_name = "FILTER", env = "BATON_LOG")]
    pub log: Option<String>,
    /// Sign webhooks with the secret in this file: `whsec_` and base64 (Standard Webhooks), or plain text of at least 24 bytes
    #[arg(long, value_name = "FILE", env = "BATON_WEBHOOK_SECRET_FILE")]
    #[serde(skip)]
    pub webhook_secret_file: Option<PathBuf>,
    /// The same secret itself; better in the environment or in a file, since others on this machine can read command lines
    #[arg(long, value_name = "SECRET", env = "BATON_WEBHOOK_SECRET", hide_env_values = true)]
    #[serde(skip)]
    pub webhook_secret: Option<Hidden>,
    /// What the file says about webhooks.
    #[arg(skip)]
    pub webhooks: WebhooksTable,
    /// The commands of the file that cut holders off, by their names.
    #[arg(skip)]
    pub fence_agents: BTreeMap<String, AgentTable>,
    /// What the file says about probes.
    #[arg(skip)]
    pub probe: ProbeTable,
    /// The local commands of the file, by their names.
    #[arg(skip)]
    pub agents: BTreeMap<String, AgentTable>,
    /// End when standard input closes: for parents that must not leave orphans
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub exit_when_stdin_closes: bool,
}

/// The table `[probe]` of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProbeTable {
    /// How probes speak TLS.
    pub tls: ProbeTlsTable,
}

/// The table `[probe.tls]` of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProbeTlsTable {
    /// PEM certificates trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// The table `[webhooks]` of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebhooksTable {
    /// What they are signed with.
    pub secret: Option<Hidden>,
    /// The file that holds it.
    pub secret_file: Option<PathBuf>,
}

/// A text that is never shown, not even to whoever debugs.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Hidden(String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A table `[agents.NAME]` or `[fence_agents.NAME]` of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentTable {
    /// The program and its arguments. No shell reads them.
    pub command: Vec<String>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// What a node runs with: checked, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServeConfig {
    /// This node's number.
    pub node_id: NodeId,
    /// Where it keeps its databases.
    pub data_dir: PathBuf,
    /// Where clients find it.
    pub listen: SocketAddr,
    /// Where other nodes find it.
    pub peer_listen: SocketAddr,
    /// Every node of the initial cluster with its peer address; empty: a cluster of one.
    pub initial_cluster: BTreeMap<NodeId, String>,
    /// Host names allowed in `Host`, beside IP literals and localhost.
    pub allowed_hosts: Vec<String>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
    /// The file of certificates that probes trust, beside the system's.
    pub probe_ca_file: Option<PathBuf>,
    /// What probes go by: what is in that file, and the local commands.
    pub probe: ProbeConfig,
    /// The file that the secret of webhooks came from.
    pub webhook_secret_file: Option<PathBuf>,
    /// What fencing hooks go by: that secret, and the commands that cut holders off.
    pub hooks: HookConfig,
}

impl fmt::Display for ServeConfig {
    /// As a file would say it, so that the output can be one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster: Vec<String> = self.initial_cluster.iter().map(|(id, peer)| format!("{id}={peer}")).collect();
        writeln!(f, "node_id = {}", self.node_id)?;
        writeln!(f, "data_dir = {:?}", self.data_dir.display().to_string())?;
        writeln!(f, "listen = \"{}\"", self.listen)?;
        writeln!(f, "peer_listen = \"{}\"", self.peer_listen)?;
        if !cluster.is_empty() {
            writeln!(f, "initial_cluster = \"{}\"", cluster.join(","))?;
        }
        writeln!(f, "allowed_hosts = \"{}\"", self.allowed_hosts.join(","))?;
        let format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        writeln!(f, "log_format = \"{format}\"")?;
        write!(f, "log = {:?}", self.log)?;
        if let Some(path) = &self.probe_ca_file {
            write!(f, "\n\n[probe.tls]\nca_file = {:?}", path.display().to_string())?;
        }
        match (&self.webhook_secret_file, &self.hooks.secret) {
            (Some(path), _) => write!(f, "\n\n[webhooks]\nsecret_file = {:?}", path.display().to_string())?,
            (None, Some(_)) => f.write_str("\n\n[webhooks]\n# secret is set, and not shown")?,
            (None, None) => {}
        }
        for (kind, agents) in [("agents", &self.probe.agents), ("fence_agents", &self.hooks.agents)] {
            for (name, command) in agents {
                write!(f, "\n\n[{kind}.{name}]\ncommand = {}", toml::Value::from(command.clone()))?;
            }
        }
        Ok(())
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why, with the line.
        message: String,
    },
    /// Settings that cannot be; all of them at once.
    #[error("{}", Listed(.0))]
    Invalid(Vec<String>),
}

struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl ServeArgs {
    /// Fills what is not said from the file, then from the defaults, and checks it all.
    pub(crate) fn resolve(self) -> Result<ServeConfig, ConfigError> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        // The two are one setting: whoever says one of them by flag or environment does not want the file's other.
        let webhooks = match (self.webhook_secret, self.webhook_secret_file) {
            (None, None) => file.webhooks,
            (secret, secret_file) => WebhooksTable { secret, secret_file },
        };
        let said = Self {
            config: None,
            node_id: self.node_id.or(file.node_id),
            data_dir: self.data_dir.or(file.data_dir),
            listen: self.listen.or(file.listen),
            peer_listen: self.peer_listen.or(file.peer_listen),
            initial_cluster: self.initial_cluster.or(file.initial_cluster),
            allowed_hosts: self.allowed_hosts.or(file.allowed_hosts),
            insecure: self.insecure.or(file.insecure),
            log_format: self.log_format.or(file.log_format),
            log: self.log.or(file.log),
            webhook_secret: None,
            webhook_secret_file: None,
            webhooks,
            fence_agents: file.fence_agents,
            probe: file.probe,
            agents: file.agents,
            exit_when_stdin_closes: self.exit_when_stdin_closes,
        };
        check(said)
    }
}

fn read_file(path: &Path) -> Result<ServeArgs, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > FILE_MAX {
        let message = format!("is {size} bytes long: a configuration has at most {FILE_MAX}");
        return Err(ConfigError::Parse { path: path.to_owned(), message });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    toml::from_str(&text)
        .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: words_of(&error, &text) })
}

/// What is wrong with the file, with the line. A line that may hold a secret is not repeated.
fn words_of(error: &toml::de::Error, text: &str) -> String {
    let words = error.to_string();
    if !words.contains("secret") {
        return words;
    }
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

fn check(said: ServeArgs) -> Result<ServeConfig, ConfigError> {
    let mut problems = Vec::new();
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let node_id = said.node_id.unwrap_or(1);
    let listen = said.listen.unwrap_or_else(|| loopback(API_PORT));
    let peer_listen = said.peer_listen.unwrap_or_else(|| loopback(PEER_PORT));
    if node_id == 0 {
        problems.push("node-id: 0 is not a node's number: they start at 1".to_owned());
    }
    let data_dir = said.data_dir.unwrap_or_default();
    if data_dir.as_os_str().is_empty() {
        problems.push(
            "data-dir: missing: say where this node keeps its databases, as in --data-dir /var/lib/baton".to_owned(),
        );
    }
    if listen == peer_listen && listen.port() != 0 {
        problems.push(format!(
            "peer-listen: {peer_listen} is the address of --listen: the API and the peers need one each"
        ));
    }
    let initial_cluster = match said.initial_cluster.as_deref().map(str::trim) {
        None => BTreeMap::new(),
        // An unset variable in a script must not make three clusters of one out of one of three.
        Some("") => {
            problems.push("initial-cluster: is empty: leave it out for a cluster of one".to_owned());
            BTreeMap::new()
        }
        Some(list) => parse_cluster(list, node_id, &mut problems),
    };
    if !said.insecure.unwrap_or(false) {
        for (flag, address) in [("listen", listen), ("peer-listen", peer_listen)] {
            if !address.ip().is_loopback() {
                problems.push(format!(
                    "{flag}: {address} is reachable from outside and this version has neither TLS nor access tokens: \
                     listen on 127.0.0.1, or say --insecure where the network itself is trusted"
                ));
            }
        }
    }
    let probe_ca_file = said.probe.tls.ca_file;
    let ca = match probe_ca_file.as_deref().map(|path| (path, read_ca_file(path))) {
        None => Vec::new(),
        Some((_, Ok(certificates))) => certificates,
        Some((path, Err(error))) => {
            problems.push(format!("probe.tls.ca_file: {} {error}", path.display()));
            Vec::new()
        }
    };
    let agents = check_agents("agents", said.agents, &mut problems);
    let fence_agents = check_agents("fence_agents", said.fence_agents, &mut problems);
    let webhook_secret_file = said.webhooks.secret_file.clone();
    let secret = check_secret(said.webhooks, &mut problems);
    let allowed_hosts = said.allowed_hosts.iter().flat_map(|list| list.split(',')).map(str::trim);
    let allowed_hosts = allowed_hosts.filter(|host| !host.is_empty()).map(str::to_ascii_lowercase).collect();
    if problems.is_empty() {
        Ok(ServeConfig {
            node_id,
            data_dir,
            listen,
            peer_listen,
            initial_cluster,
            allowed_hosts,
            log_format: said.log_format.unwrap_or_default(),
            log: said.log.unwrap_or_else(|| LOG_DEFAULT.to_owned()),
            probe: ProbeConfig { ca, ca_file: probe_ca_file.clone(), agents },
            probe_ca_file,
            webhook_secret_file,
            hooks: HookConfig { secret, agents: fence_agents },
        })
    } else {
        Err(ConfigError::Invalid(problems))
    }
}

/// The secret of webhooks, from one place. What is wrong with it is said without it.
fn check_secret(said: WebhooksTable, problems: &mut Vec<String>) -> Option<Secret> {
    let (setting, text) = match (said.secret, said.secret_file) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            problems.push("webhooks.secret: stands beside webhooks.secret_file: leave one of them out".to_owned());
            return None;
        }
        (Some(Hidden(text)), None) => ("webhooks.secret:".to_owned(), text),
        (None, Some(path)) => match read_secret(&path) {
            Ok(text) => (format!("webhooks.secret_file: {}", path.display()), text),
            Err(error) => {
                problems.push(format!("webhooks.secret_file: {}: {error}", path.display()));
                return None;
            }
        },
    };
    text.parse().map_err(|error| problems.push(format!("{setting} {error}"))).ok()
}

/// The first and only line of a file.
fn read_secret(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > SECRET_FILE_MAX {
        let message = format!("is {size} bytes long: a secret's file has at most {SECRET_FILE_MAX}");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
    }
    Ok(std::fs::read_to_string(path)?.trim_end().to_owned())
}

/// The local commands of the table `[kind]`: named as instances are, and none of them empty.
fn check_agents(
    kind: &str,
    agents: BTreeMap<String, AgentTable>,
    problems: &mut Vec<String>,
) -> BTreeMap<InstanceId, Vec<String>> {
    if agents.len() > AGENTS_MAX {
        problems.push(format!("{kind}: {} of them are more than the {AGENTS_MAX} that may be", agents.len()));
    }
    let mut checked = BTreeMap::new();
    for (name, AgentTable { command }) in agents {
        if command.first().is_none_or(String::is_empty) {
            problems
                .push(format!("{kind}.{name}.command: names no program: write [\"/path/to/program\", \"argument\"]"));
        } else if command.iter().any(|part| part.contains('\0')) {
            problems.push(format!("{kind}.{name}.command: has a zero byte, which no program can be given"));
        }
        match name.parse::<InstanceId>() {
            Ok(name) => _ = checked.insert(name, command),
            Err(error) => problems.push(format!("{kind}: {error}")),
        }
    }
    checked
}

/// Parses `1=HOST:PORT,2=HOST:PORT,3=HOST:PORT`.
fn parse_cluster(list: &str, node_id: NodeId, problems: &mut Vec<String>) -> BTreeMap<NodeId, String> {
    let mut members = BTreeMap::new();
    let mut problem = |text: String| problems.push(format!("initial-cluster: {text}"));
    for entry in list.split(',').map(str::trim) {
        let Some((id, address)) = entry.split_once('=') else {
            problem(format!("\"{entry}\" is not NODE=HOST:PORT, as in 1=127.0.0.1:7401"));
            continue;
        };
        let Some(id) = id.trim().parse::<NodeId>().ok().filter(|&id| id > 0) else {
            problem(format!("\"{id}\" in \"{entry}\" is not a node's number: they start at 1"));
            continue;
        };
        let address = match address.trim().parse::<baton_core::policy::Address>() {
            Ok(address) => address.to_string(),
            Err(error) => {
                problem(format!("node {id}: {error}"));
                continue;
            }
        };
        if members.values().any(|known| *known == address) {
            problem(format!("{address} is given to two nodes"));
        }
        if members.insert(id, address).is_some() {
            problem(format!("node {id} is named twice"));
        }
    }
    if !members.contains_key(&node_id) {
        problem(format!("node {node_id} (this one, by --node-id) is not in \"{list}\""));
    }
    if ![1, 3, 5].contains(&members.len()) {
        problem(format!(
            "has {} nodes: use 1, 3 or 5 (an even number survives no more failures than one node fewer)",
            members.len()
        ));
    }
    members
}

/// `host:port` under which others reach a listener that is bound to `bound`; `seen_as` is this node's own entry in the
/// initial cluster and lends its host where the listener is bound to every address.
pub(crate) fn advertised(bound: SocketAddr, seen_as: Option<&str>) -> String {
    let unspecified = match bound.ip() {
        IpAddr::V4(ip) => ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    match seen_as.and_then(|address| address.rsplit_once(':')) {
        Some((host, _)) if unspecified => format!("{host}:{}", bound.port()),
        Some(_) | None => bound.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(cluster: Option<&str>) -> ServeArgs {
        ServeArgs {
            data_dir: Some("/tmp/d".into()),
            initial_cluster: cluster.map(str::to_owned),
            ..ServeArgs::default()
        }
    }

    fn problems(args: ServeArgs) -> Vec<String> {
        match args.resolve() {
            Err(ConfigError::Invalid(problems)) => problems,
            other => panic!("expected problems, got {other:?}"),
        }
    }

    #[test]
    fn a_directory_is_all_that_a_cluster_of_one_needs() {
        let config = args(None).resolve().expect("resolves");
        assert_eq!(config.node_id, 1);
        assert_eq!(config.listen.to_string(), "127.0.0.1:7400");
        assert_eq!(config.peer_listen.to_string(), "127.0.0.1:7401");
        assert!(config.initial_cluster.is_empty());
    }

    #[test]
    fn every_problem_is_named_with_its_setting() {
        let mut all = args(Some("1=a,x=h:1,2=h:2,2=h:3,3=h:3,7"));
        all.data_dir = None;
        all.node_id = Some(9);
        all.listen = "0.0.0.0:7400".parse().ok();
        let found = problems(all);
        for expected in [
            "data-dir: missing",
            "listen: 0.0.0.0:7400",
            "node 1: \"a\" is not an address",
            "\"x\" in \"x=h:1\"",
            "node 2 is named twice",
            "h:3 is given to two nodes",
            "\"7\" is not NODE=HOST:PORT",
            "node 9 (this one",
        ] {
            assert!(found.iter().any(|problem| problem.contains(expected)), "{expected} in {found:#?}");
        }
        assert!(problems(args(Some("1=h:1,2=h:2")))[0].contains("use 1, 3 or 5"));
    }

    #[test]
    fn outside_addresses_need_a_word() {
        let mut open = args(None);
        open.listen = "10.1.2.3:7400".parse().ok();
        assert_eq!(problems(open.clone()).len(), 1);
        open.insecure = Some(true);
        assert!(open.resolve().is_ok());
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("baton.toml");
        std::fs::write(&path, "node_id = 3\ndata_dir = \"/from/file\"\nlisten = \"127.0.0.1:9000\"\n")
            .expect("written");
        let mut said = ServeArgs { config: Some(path.clone()), ..ServeArgs::default() };
        said.listen = "127.0.0.1:9001".parse().ok();
        let config = said.resolve().expect("resolves");
        assert_eq!((config.node_id, config.data_dir.as_path()), (3, Path::new("/from/file")));
        assert_eq!(config.listen.port(), 9001);

        std::fs::write(&path, "node_idd = 3\n").expect("written");
        let error = ServeArgs { config: Some(path), ..ServeArgs::default() }.resolve().expect_err("a typo");
        assert!(error.to_string().contains("node_idd"), "{error}");
    }

    #[test]
    fn what_probes_trust_is_read_at_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, ca) = (dir.path().join("baton.toml"), dir.path().join("ca.pem"));
        let key = rcgen::generate_simple_self_signed(["x".to_owned()]).expect("a certificate");
        std::fs::write(&ca, key.cert.pem()).expect("written");
        let text = format!("data_dir = \"/d\"\n[probe.tls]\nca_file = \"{}\"\n", ca.display());
        std::fs::write(&path, text).expect("written");
        let said = || ServeArgs { config: Some(path.clone()), ..ServeArgs::default() };
        let config = said().resolve().expect("resolves");
        assert_eq!((config.probe.ca.len(), config.probe_ca_file.as_ref()), (1, Some(&ca)));
        std::fs::write(&path, config.to_string()).expect("written");
        assert_eq!(said().resolve().expect("what is shown is a configuration"), config);
        std::fs::write(&ca, "none").expect("written");
        assert!(problems(said())[0].contains("ca.pem has no certificate"), "{:?}", problems(said()));
        std::fs::remove_file(&ca).expect("removed");
        assert!(problems(said())[0].starts_with("probe.tls.ca_file: "), "{:?}", problems(said()));
    }

    #[test]
    fn agents_are_commands_with_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("baton.toml");
        let resolve = |text: &str| {
            std::fs::write(&path, format!("data_dir = \"/d\"\n{text}")).expect("written");
            ServeArgs { config: Some(path.clone()), ..ServeArgs::default() }.resolve()
        };
        let config = resolve("[agents.disk]\ncommand = [\"/bin/df\", \"a b\\t\\\"\"]\n[agents.x-1]\ncommand = [\"x\"]");
        let config = config.expect("resolves");
        let disk = &config.probe.agents[&"disk".parse::<InstanceId>().expect("a name")];
        assert_eq!(
            (disk.as_slice(), config.probe.agents.len()),
            (&["/bin/df".to_owned(), "a b\t\"".to_owned()][..], 2)
        );
        assert_eq!(resolve(&config.to_string().replace("data_dir", "#")).expect("a configuration"), {
            let data_dir = PathBuf::from("/d");
            ServeConfig { data_dir, ..config }
        });
        let many: String = (0..=AGENTS_MAX).map(|n| format!("[agents.a{n}]\ncommand = [\"x\"]\n")).collect();
        for (text, words) in [
            ("[agents.disk]\ncommand = []", "agents.disk.command: names no program"),
            ("[agents.disk]\ncommand = [\"\"]", "agents.disk.command: names no program"),
            ("[agents.disk]\ncommand = [\"x\", \"\\u0000\"]", "zero byte"),
            ("[agents.Disk]\ncommand = [\"x\"]", "agents: \"Disk\" is not a name"),
            (many.as_str(), "agents: 101 of them"),
            ("[agents.disk]\ncommand = \"x y\"", "expected a sequence"),
            ("[agents.disk]\ncommand = [\"x\"]\nuser = \"root\"", "unknown field `user`"),
            ("[agents.disk]", "missing field `command`"),
        ] {
            let error = resolve(text).expect_err(words).to_string();
            assert!(error.contains(words), "\"{error}\" does not say \"{words}\"");
        }
    }

    #[test]
    fn fence_agents_are_commands_of_their_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("baton.toml");
        let resolve = |text: &str| {
            std::fs::write(&path, format!("data_dir = \"/d\"\n{text}")).expect("written");
            ServeArgs { config: Some(path.clone()), ..ServeArgs::default() }.resolve()
        };
        let config = resolve("[agents.look]\ncommand = [\"l\"]\n[fence_agents.off]\ncommand = [\"o\", \"p q\"]");
        let config = config.expect("resolves");
        let off = &config.hooks.agents[&"off".parse::<InstanceId>().expect("a name")];
        assert_eq!((off.as_slice(), config.hooks.agents.len()), (&["o".to_owned(), "p q".to_owned()][..], 1));
        assert_eq!(config.probe.agents.len(), 1, "a check cannot run what cuts somebody off");
        let again = resolve(&config.to_string().replace("data_dir", "#")).expect("a configuration");
        assert_eq!(again.hooks, config.hooks);
        let error = resolve("[fence_agents.off]\ncommand = []").expect_err("no program").to_string();
        assert!(error.contains("fence_agents.off.command: names no program"), "{error}");
    }

    #[test]
    fn the_secret_of_webhooks_comes_from_one_place_and_is_shown_in_none() {
        const KEY: &str = "hunter2, hunter2 and hunter2";
        let dir = tempfile::tempdir().expect("a directory");
        let (path, file) = (dir.path().join("baton.toml"), dir.path().join("secret"));
        let said = |text: &str| {
            std::fs::write(&path, format!("data_dir = \"/d\"\n{text}")).expect("written");
            ServeArgs { config: Some(path.clone()), ..ServeArgs::default() }
        };
        let by_file = format!("[webhooks]\nsecret_file = {:?}\n", file.display().to_string());
        let by_text = format!("[webhooks]\nsecret = \"{KEY}\"\n");
        std::fs::write(&file, format!("{KEY}\n")).expect("written");
        let secret: Secret = KEY.parse().expect("a secret");

        let config = said(&by_file).resolve().expect("resolves");
        assert_eq!(config.hooks.secret.as_ref(), Some(&secret), "the end of the line is not part of it");
        std::fs::write(&path, config.to_string()).expect("written");
        let again = ServeArgs { config: Some(path.clone()), ..ServeArgs::default() }.resolve();
        assert_eq!(again.expect("what is shown is a configuration"), config);

        let config = said(&by_text).resolve().expect("resolves");
        assert_eq!(config.hooks.secret.as_ref(), Some(&secret));
        let shown = config.to_string();
        assert!(
            shown.contains("# secret is set, and not shown") && toml::from_str::<ServeArgs>(&shown).is_ok(),
            "{shown}"
        );
        let shown = format!("{shown} {config:?} {:?}", said(&by_text));
        assert!(!shown.contains("hunter2"), "{shown}");

        // By flag or environment one of the two replaces whatever the file says.
        let other = ServeArgs { webhook_secret: Some(Hidden("x".repeat(24))), ..said(&by_file) };
        assert_eq!(other.resolve().expect("resolves").hooks.secret, "x".repeat(24).parse().ok());
        let by_flag = ServeArgs { webhook_secret_file: Some(file.clone()), ..said(&by_text) };
        assert_eq!(by_flag.resolve().expect("resolves").webhook_secret_file.as_ref(), Some(&file));

        std::fs::write(&file, "hunter2").expect("written");
        for (text, words) in [
            (format!("{by_text}secret_file = \"/x\""), "webhooks.secret: stands beside webhooks.secret_file"),
            (by_file, "secret has a key of 7 bytes, and fewer than 24 can be guessed"),
            (
                "[webhooks]\nsecret_file = \"/nonexistent/x\"".to_owned(),
                "webhooks.secret_file: /nonexistent/x: No such file",
            ),
            ("[webhooks]\nsecret = \"whsec_hunter2?\"".to_owned(), "webhooks.secret: begins with \"whsec_\""),
            (by_text.replace("secret =", "secrett ="), "line 3: unknown field `secrett`"),
            (by_text.replace("hunter2\"", "hunter2"), "line 3: "),
        ] {
            let error = said(&text).resolve().expect_err(words).to_string();
            assert!(error.contains(words), "\"{error}\" does not say \"{words}\"");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_listener_on_every_address_is_advertised_by_its_peer_name() {
        let any = "0.0.0.0:7400".parse().expect("an address");
        assert_eq!(advertised(any, Some("db-1:7401")), "db-1:7400");
        assert_eq!(advertised("10.0.0.1:7400".parse().expect("an address"), Some("db-1:7401")), "10.0.0.1:7400");
    }
}
