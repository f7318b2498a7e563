//! What `deploy/` ships is accepted by what is shipped with it. A kind of file that nobody checks here fails.

use std::path::{Path, PathBuf};

use crate::support::process::{BATON, baton, clean, run};
use crate::support::{Load, SOON, scenario};

/// Every file below `deploy/`.
fn files() -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).expect("deploy/ can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy"), &mut found);
    found.sort();
    found
}

/// How a file is checked.
enum Kind {
    Unit,
    Configuration,
    Words,
}

fn kind(path: &Path) -> Kind {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name {
        _ if name.ends_with(".service") => Kind::Unit,
        _ if name.ends_with(".toml") || name.ends_with(".toml.example") => Kind::Configuration,
        _ if name.ends_with(".md") => Kind::Words,
        _ => panic!("{} is shipped and nobody checks it: add its kind here", path.display()),
    }
}

/// A unit file's lines as (section, key, value).
fn parse_unit(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    let joined = text.replace("\\\n", " ");
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("neither a section nor a setting: {line}"));
        assert!(!section.is_empty(), "a setting outside of a section: {line}");
        assert!(key.chars().all(|c| c.is_ascii_alphanumeric()), "a strange key: {line}");
        found.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
    }
    found
}

#[test]
fn the_units_start_what_baton_understands() {
    scenario(Load::Light, async {
        let help = baton(&["serve", "--help"]).await;
        assert_eq!(help.code, Some(0), "{}", help.stderr);
        let units: Vec<PathBuf> = files().into_iter().filter(|path| matches!(kind(path), Kind::Unit)).collect();
        assert!(!units.is_empty(), "deploy/ has no systemd unit");
        for path in units {
            let shown = path.display();
            let unit = parse_unit(&std::fs::read_to_string(&path).expect("a text"));
            let get = |section: &str, key: &str| {
                unit.iter().find(|(s, k, _)| s == section && k == key).map(|(_, _, value)| value.as_str())
            };
            for section in unit.iter().map(|(section, _, _)| section) {
                assert!(["Unit", "Service", "Install"].contains(&section.as_str()), "{shown}: section [{section}]");
            }
            assert!(get("Unit", "Description").is_some_and(|text| !text.is_empty()), "{shown}");
            assert!(get("Install", "WantedBy").is_some(), "{shown} cannot be enabled");
            assert!(get("Service", "Restart").is_some(), "{shown} is not restarted");
            let start = get("Service", "ExecStart").unwrap_or_else(|| panic!("{shown} starts nothing"));
            let mut words = start.split_whitespace();
            let program = words.next().unwrap_or_default();
            assert!(program.ends_with("/baton") && program.starts_with('/'), "{shown}: {start}");
            assert_eq!(words.next(), Some("serve"), "{shown}: {start}");
            for flag in words.filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().unwrap_or_default();
                let known = help.stdout.split_whitespace().any(|word| word.trim_end_matches([',', '.']) == flag);
                assert!(known, "{shown}: `baton serve` has no {flag}");
            }
            // Type=notify would wait for a word that is never said; a unit may only ask for what the daemon does.
            let kind = get("Service", "Type").unwrap_or("simple");
            assert!(["simple", "exec"].contains(&kind), "{shown}: Type={kind}");
        }
    });
}

#[test]
fn the_example_configurations_are_accepted() {
    scenario(Load::Light, async {
        let examples: Vec<PathBuf> =
            files().into_iter().filter(|path| matches!(kind(path), Kind::Configuration)).collect();
        assert!(!examples.is_empty(), "deploy/ has no example configuration");
        let scratch = tempfile::tempdir().expect("a temporary directory");
        for path in examples {
            let text = std::fs::read_to_string(&path).expect("a text");
            accepted(&path.display().to_string(), &path).await;
            // And with every setting that it only mentions, `# name = value`, in the place of one that it has.
            let mentioned: Vec<&str> =
                text.lines().filter_map(|line| line.strip_prefix("# ")).filter(|rest| key(rest).is_some()).collect();
            let replaced = |line: &str| key(line).is_some_and(|had| mentioned.iter().any(|new| key(new) == Some(had)));
            let kept = text.lines().filter(|line| !line.starts_with('#') && !replaced(line));
            let said_aloud: String = kept.chain(mentioned.iter().copied()).map(|line| format!("{line}\n")).collect();
            assert!(!mentioned.is_empty(), "{} mentions nothing", path.display());
            let copy = scratch.path().join("all.toml");
            std::fs::write(&copy, &said_aloud).expect("a copy");
            accepted(&format!("{} with its comments said aloud:\n{said_aloud}", path.display()), &copy).await;
        }
        // A check that accepts everything is none.
        let wrong = scratch.path().join("wrong.toml");
        std::fs::write(&wrong, "nod_id = 1\n").expect("a file");
        let refused = check(&wrong).await;
        assert_eq!(refused.code, Some(3), "{} {}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains("nod_id"), "{}", refused.stderr);
    });
}

/// The name in `name = value`.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.');
    plain.then_some(key)
}

async fn check(path: &Path) -> crate::support::process::Outcome {
    let mut command = clean(BATON);
    command.args(["check-config", "--config"]).arg(path);
    run(command, SOON).await
}

async fn accepted(what: &str, path: &Path) {
    let outcome = check(path).await;
    assert_eq!(outcome.code, Some(0), "{what} is refused: {} {}", outcome.stdout, outcome.stderr);
}
