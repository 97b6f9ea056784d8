//! The jars of Apache Kafka: fetched once by Maven, kept under `target/devstack`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;
use crate::progress::Progress;
use crate::tool;

/// Names the version and every jar that is needed.
const POM: &str = include_str!("../../../docker/kafka/pom.xml");

/// What the pom pins.
const VERSION: &str = "4.3.1";

/// In the folder of the jars: the pom they were fetched by. Another pom fetches anew.
const STAMP: &str = "pom.xml";

/// The folder of the jars, filled when it is not.
pub(crate) fn fetch() -> Result<PathBuf, Error> {
    let cache = cache();
    let libs = cache.join("kafka-libs");
    if complete(&libs) {
        return Ok(libs);
    }
    let missing = || Error::Missing {
        what: "Maven (`mvn`), which fetches the jars of Apache Kafka,".to_owned(),
        get: "apt-get install maven (or set KAFKA_BOOTSTRAP_SERVERS to use a Kafka of yours)",
    };
    let mvn = tool::on_path("mvn").ok_or_else(missing)?;
    fs::create_dir_all(&cache).map_err(Error::io(format!("creating {}", cache.display())))?;
    // Fetched beside and renamed when whole: two processes may do so at once, and one may be killed.
    let staging = tempfile::Builder::new().prefix("kafka-libs-").tempdir_in(&cache);
    let staging = staging.map_err(Error::io(format!("creating a folder in {}", cache.display())))?;
    let pom = staging.path().join(STAMP);
    fs::write(&pom, POM).map_err(Error::io(format!("writing {}", pom.display())))?;

    let progress = Progress::start(format!("Fetching Apache Kafka {VERSION} by Maven (44 MB, once)"));
    let mut maven = Command::new(mvn);
    maven.args(["--batch-mode", "--quiet", "--file"]).arg(&pom).arg(format!("-Dlibs={}", staging.path().display()));
    maven.arg("package");
    tool::run(format!("fetching Apache Kafka {VERSION} by Maven"), &mut maven)?;
    drop(progress);

    if libs.exists() && !complete(&libs) {
        fs::remove_dir_all(&libs).map_err(Error::io(format!("removing the outdated {}", libs.display())))?;
    }
    match fs::rename(staging.keep(), &libs) {
        Err(_) if complete(&libs) => Ok(libs),
        Err(source) => Err(Error::Io { tried: format!("moving the jars to {}", libs.display()), source }),
        Ok(()) => Ok(libs),
    }
}

fn complete(libs: &Path) -> bool {
    fs::read_to_string(libs.join(STAMP)).is_ok_and(|pom| pom == POM)
}

/// `target/devstack` of the source tree this was built from; where that is gone, the user's cache.
fn cache() -> PathBuf {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match tree.canonicalize() {
        Ok(tree) if tree.join("Cargo.toml").is_file() => tree.join("target/devstack"),
        _ => {
            let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
            home.unwrap_or_else(std::env::temp_dir).join("mailtide")
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_pom_pins_the_version() {
        let (_, after) = super::POM.split_once("<artifactId>kafka_2.13</artifactId>").unwrap();
        assert!(after.trim_start().starts_with(&format!("<version>{}</version>", super::VERSION)));
    }
}
