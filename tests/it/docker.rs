//! The files under `docker/` say what the binary says: its settings, its sub-commands, its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::support::clients;

/// The variables that an operator sets; anything will do here.
const TOKEN_KEY: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

fn root(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&file(name)).unwrap_or_else(|error| panic!("docker/{name}: {error}"))
}

/// `${NAME:-default}` and `${NAME:?message}` as compose fills them in where nothing is set but the token key.
fn filled(text: &str) -> String {
    let Some(inside) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else { return text.to_owned() };
    match inside.split_once(":-") {
        Some((_, default)) => default.to_owned(),
        None => {
            assert!(inside.starts_with("MAILTIDE_STORE_TOKEN_KEY:?"), "nobody sets {text}");
            TOKEN_KEY.to_owned()
        }
    }
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries
        .map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), filled);
            (name.clone(), text)
        })
        .collect()
}

/// What the image itself sets: the `ENV` of its last stage.
fn image() -> BTreeMap<String, String> {
    let text = file("Dockerfile").replace("\\\n", " ");
    let last = text.rsplit("\nFROM ").next().unwrap().to_owned();
    let env = last.lines().find_map(|line| line.strip_prefix("ENV ")).expect("the image sets its addresses");
    env.split_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// The services of the compose file that run our image, with all that is in their environment.
fn ours() -> BTreeMap<String, (Value, BTreeMap<String, String>)> {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_object().unwrap().clone();
    let ours = services.into_iter().filter(|(_, service)| service["image"] == "mailtide");
    ours.map(|(name, service)| {
        let mut environment = image();
        environment.extend(strings(&service["environment"]));
        (name, (service, environment))
    })
    .collect()
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

#[tokio::test]
async fn every_service_of_the_compose_file_is_one_of_the_binary_and_its_settings_are_taken() {
    let services = ours();
    let names = ["fetcher", "ingress", "poller", "projector", "scheduler", "simulator"];
    assert_eq!(services.keys().collect::<Vec<_>>(), names);
    for (name, (service, environment)) in services {
        let program = env!("CARGO_BIN_EXE_mailtide-under-test");
        let command = service["command"][0].as_str().unwrap();
        let help = Command::new(program).args([command, "--help"]).env_clear().output().await.unwrap();
        assert!(help.status.success(), "{name} runs `mailtide {command}`, which is no sub-command");
        // All settings are read and checked before anything is done; wrong ones end with 2. Nobody listens on that port.
        let mut health = Command::new(program);
        health.arg("health").env_clear().envs(&environment).env("MAILTIDE_ADMIN_ADDRESS", "127.0.0.1:1");
        let output = health.stdin(Stdio::null()).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains("nobody answers"), "{name}: {said}");
    }
}

#[test]
fn ports_agree_between_the_image_the_compose_file_and_prometheus() {
    let services = ours();
    let dockerfile = file("Dockerfile");
    let exposed = dockerfile.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    let exposed: Vec<&str> = exposed.split_whitespace().collect();
    let of = |service: &str, setting: &str| port(&services[service].1[setting]).to_owned();
    assert_eq!(exposed, [of("ingress", "MAILTIDE_INGRESS_LISTEN"), of("ingress", "MAILTIDE_ADMIN_ADDRESS")]);

    let published =
        |service: &str| services[service].0["ports"][0].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    assert_eq!(published("ingress"), of("ingress", "MAILTIDE_INGRESS_LISTEN"));
    assert_eq!(published("simulator"), of("simulator", "MAILTIDE_SIMULATOR_LISTEN"));
    for (name, (_, environment)) in &services {
        for (key, value) in environment.iter().filter(|(_, value)| value.contains("simulator:")) {
            let url: reqwest::Url = value.parse().unwrap();
            assert_eq!(url.port().unwrap().to_string(), of("simulator", "MAILTIDE_SIMULATOR_LISTEN"), "{name}: {key}");
        }
    }

    let targets = yaml("prometheus.yaml")["scrape_configs"][0]["static_configs"][0]["targets"].clone();
    let targets: Vec<String> = targets.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect();
    let real = services.keys().filter(|name| *name != "simulator");
    let mut expected: Vec<String> = real.map(|name| format!("{name}:{}", of(name, "MAILTIDE_ADMIN_ADDRESS"))).collect();
    let mut scraped = targets;
    expected.sort();
    scraped.sort();
    assert_eq!(scraped, expected);
}

#[test]
fn every_path_in_the_docker_files_is_there() {
    let docker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker");
    let compose = yaml("compose.yaml");
    for (name, service) in compose["services"].as_object().unwrap() {
        let mounted = service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for source in mounted.filter_map(|volume| volume.split(':').next()).filter(|source| source.starts_with('.')) {
            assert!(docker.join(source).is_file(), "{name} mounts {source}, which is not there");
        }
        if let Some(build) = service.get("build") {
            let context = docker.join(build["context"].as_str().unwrap());
            assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file(), "{name}");
        }
    }
    // What the build is given is named one by one; all that the workspace is made of must be.
    let root = docker.join("..");
    let sent = std::fs::read_to_string(root.join(".dockerignore")).unwrap();
    let sent: Vec<&str> = sent.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for path in &sent {
        assert!(root.join(path).exists(), ".dockerignore names {path}, which is not there");
    }
    for member in
        ["Cargo.toml", "Cargo.lock", "bench", "chaos", "crates", "examples", "mailtide", "schemas", "services", "tests"]
    {
        assert!(sent.contains(&member), ".dockerignore keeps {member} from the build");
    }
}

/// Runs a program of others on files under `docker/`; its exit code and what it wrote.
async fn tool(program: &Path, arguments: &[&str], token_key: Option<&str>) -> (bool, String, String) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MAILTIDE_")) {
        command.env_remove(name);
    }
    for name in ["KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
        command.env_remove(name);
    }
    if let Some(key) = token_key {
        command.env("MAILTIDE_STORE_TOKEN_KEY", key);
    }
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn tools_of_others_take_the_dockerfile_and_render_the_compose_file() {
    let programs = clients::python("docker").await;
    let lint = tool(&programs.join("hadolint"), &["Dockerfile"], None).await;
    assert!(lint.0, "hadolint: {}{}", lint.1, lint.2);
    // It can find.
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("Dockerfile");
    std::fs::write(&bad, "FROM debian\nRUN cd /tmp\n").unwrap();
    assert!(!tool(&programs.join("hadolint"), &[bad.to_str().unwrap()], None).await.0);

    // Rendering reads no container and starts none.
    let config = ["--dry-run", "--file", "compose.yaml", "config"];
    let (is_rendered, rendered, said) = tool(&programs.join("podman-compose"), &config, Some(TOKEN_KEY)).await;
    assert!(is_rendered, "{said}");
    let file = folder.path().join("compose.yaml");
    std::fs::write(&file, &rendered).unwrap();
    for path in ["compose.yaml", file.to_str().unwrap()] {
        let schema = ["--builtin-schema", "vendor.compose-spec", path];
        let (is_valid, out, error) = tool(&programs.join("check-jsonschema"), &schema, None).await;
        assert!(is_valid, "{path}: {out}{error}");
    }
    let rendered: Value = serde_saphyr::from_str(&rendered).unwrap();
    let image = image();
    for (name, (_, ours)) in ours() {
        let mut theirs = image.clone();
        theirs.extend(strings(&rendered["services"][&name]["environment"]));
        assert_eq!(theirs, ours, "{name} gets the environment that the other tests look at");
    }
    let (is_rendered, _, said) = tool(&programs.join("podman-compose"), &config, None).await;
    assert!(!is_rendered && said.contains("MAILTIDE_STORE_TOKEN_KEY"), "without a key it says what is missing: {said}");
}

/// What `docs/metrics.md` lists, without the endings that histograms get.
fn listed_metrics() -> BTreeSet<String> {
    let page = root("docs/metrics.md");
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name.to_owned()).collect()
}

/// The metrics of ours that a query names.
fn asked(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("mailtide_")).map(|word| word.strip_suffix("_bucket").unwrap_or(word))
}

#[test]
fn alerts_ask_for_metrics_that_are_there_and_each_has_its_page_in_the_runbook() {
    let listed = listed_metrics();
    let rules = yaml("alerts.yaml")["groups"][0]["rules"].clone();
    let alerts: Vec<String> = rules
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| {
            let name = rule["alert"].as_str().unwrap().to_owned();
            for metric in asked(rule["expr"].as_str().unwrap()) {
                assert!(listed.contains(metric), "{name} asks for {metric}, which nothing exports");
            }
            let page = rule["annotations"]["runbook"].as_str().unwrap();
            assert_eq!(page, format!("docs/runbook.md#{}", name.to_lowercase()));
            name
        })
        .collect();
    let runbook = root("docs/runbook.md");
    let pages: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## Mailtide")).collect();
    assert_eq!(alerts.iter().map(|name| name.strip_prefix("Mailtide").unwrap()).collect::<Vec<_>>(), pages);
    for metric in asked(&runbook) {
        assert!(listed.contains(metric), "the runbook looks at {metric}, which nothing exports");
    }
}

#[test]
fn the_dashboard_shows_metrics_that_are_there() {
    let listed = listed_metrics();
    let dashboard: Value = serde_json::from_str(&file("grafana/mailtide.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(queries.len() > 15, "{queries:?}");
    for metric in queries.into_iter().flat_map(asked) {
        assert!(listed.contains(metric), "the dashboard shows {metric}, which nothing exports");
    }
}

#[tokio::test]
async fn prometheus_takes_its_configuration_and_the_alerts() {
    let promtool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/promtool");
    let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/prometheus.yaml");
    let output = Command::new(promtool).args(["check", "config"]).arg(configuration).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("rules found"), "the alerts are not part of it: {said}");
}
