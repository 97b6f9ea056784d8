//! What of others is in the program is what `deny.toml` allows: licences, sources, and nothing that is barred.
//!
//! The same file is cargo-deny's, which also knows of advisories. What is checked here needs nothing but cargo.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use spdx::{Expression, LicenseReq, ParseMode};
use toml::de::{DeTable, DeValue};

/// What is read of `deny.toml`.
struct Rules {
    /// Platforms.
    targets: Vec<String>,
    /// Licences.
    allow: Vec<String>,
    /// Barred crates, and why each is.
    deny: Vec<(String, String)>,
}

impl Rules {
    fn read() -> Self {
        let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
        let all = DeTable::parse(&text).unwrap().into_inner();
        let list = |section: &str, key: &str| -> Vec<DeValue<'_>> {
            let values = all[section].get_ref().get(key).unwrap().get_ref().as_array().unwrap();
            values.iter().map(|value| value.get_ref().clone()).collect()
        };
        let text = |value: &DeValue<'_>| value.as_str().unwrap().to_owned();
        let field = |value: &DeValue<'_>, key: &str| text(value.get(key).unwrap().get_ref());
        Self {
            targets: list("graph", "targets").iter().map(text).collect(),
            allow: list("licenses", "allow").iter().map(text).collect(),
            deny: list("bans", "deny").iter().map(|one| (field(one, "crate"), field(one, "reason"))).collect(),
        }
    }
}

/// A crate in the program.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Dependency {
    name: String,
    /// A folder of ours, or a registry or repository of others; none: the usual one.
    place: Option<String>,
    license: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A line of `cargo tree`: `name v1.2.3 (place)|licence`, with `(proc-macro)` and `(*)` for what they say.
fn read(line: &str) -> Dependency {
    let (package, rest) = line.split_once('|').unwrap();
    let license = rest.split_once(" (*)").map_or(rest, |(license, _)| license).to_owned();
    let name = package.split(' ').next().unwrap().to_owned();
    let places = package.split('(').skip(1).filter_map(|part| part.split_once(')')).map(|(place, _)| place);
    let place = places.filter(|place| *place != "proc-macro").last().map(str::to_owned);
    Dependency { name, place, license }
}

/// What is in the program, or takes part in its build, on a platform.
fn dependencies(target: &str) -> BTreeSet<Dependency> {
    let arguments = ["--package", "mailtide", "--edges", "normal,build", "--prefix", "none", "--format", "{p}|{l}"];
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--target", target]).args(arguments).current_dir(root());
    let output = tree.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(read).collect()
}

/// Whether one of the ways in which it may be taken asks for nothing that is not allowed.
fn is_allowed(license: &str, allow: &[String]) -> bool {
    // Older crates write `MIT/Apache-2.0`.
    let expression = Expression::parse_mode(license, ParseMode::LAX);
    let is_one = |required: &LicenseReq| required.addition.is_none() && allow.contains(&required.license.to_string());
    expression.is_ok_and(|expression| expression.evaluate(is_one))
}

/// What of a dependency is against the rules.
fn wrong(dependency: &Dependency, rules: &Rules) -> Option<String> {
    let Dependency { name, place, license } = dependency;
    if let Some((_, reason)) = rules.deny.iter().find(|(barred, _)| barred == name) {
        return Some(format!("{name} is barred: {reason}"));
    }
    if let Some(place) = place.as_ref().filter(|place| !Path::new(place).starts_with(root())) {
        return Some(format!("{name} comes from {place}"));
    }
    (!is_allowed(license, &rules.allow)).then(|| format!("{name} is under `{license}`"))
}

#[test]
fn nothing_is_in_the_program_that_may_not_be() {
    let rules = Rules::read();
    for target in &rules.targets {
        let all = dependencies(target);
        assert!(all.len() > 100 && all.iter().any(|one| one.name == "rdkafka"), "{target}: {all:?}");
        let wrong: Vec<String> = all.iter().filter_map(|one| wrong(one, &rules)).collect();
        assert!(wrong.is_empty(), "{target}: {wrong:#?}");
    }
    // The rules can find.
    let of = |name: &str, place: Option<&str>, license: &str| Dependency {
        name: name.to_owned(),
        place: place.map(str::to_owned),
        license: license.to_owned(),
    };
    for (one, is_wrong) in [
        (of("a", None, "MIT/Apache-2.0"), false),
        (of("a", None, "(MIT OR GPL-3.0-only) AND Unicode-3.0"), false),
        (of("a", None, "GPL-3.0-only"), true),
        (of("a", None, "MIT AND AGPL-3.0-only"), true),
        (of("a", None, ""), true),
        (of("rustls", None, "MIT"), true),
        (of("a", Some("https://example.org/a?rev=1#1"), "MIT"), true),
        (read("syn v2.0.1 (proc-macro)|MIT OR Apache-2.0 (*)"), false),
        (read("a v1.0.0 (https://example.org/a#1) (proc-macro)|MIT"), true),
    ] {
        assert_eq!(wrong(&one, &rules).is_some(), is_wrong, "{one:?}");
    }
}
