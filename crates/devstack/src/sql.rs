//! SQL by `psql`, for the few statements that set databases up and take them down.

use std::path::{Path, PathBuf};
use std::process::Command;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::{Error, tool};

/// A server and the `psql` to talk to it.
#[derive(Debug, Clone)]
pub(crate) struct Psql {
    program: PathBuf,
    url: Url,
}

impl Psql {
    /// The server at `url`, by the program in `folder`, or the one on `PATH`.
    pub(crate) fn new(folder: Option<&Path>, url: Url) -> Result<Self, Error> {
        let beside = folder.map(|folder| folder.join("psql")).filter(|psql| psql.is_file());
        let missing = || Error::Missing { what: "psql".to_owned(), get: "apt-get install postgresql-client" };
        Ok(Self { program: beside.or_else(|| tool::on_path("psql")).ok_or_else(missing)?, url })
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Runs one statement; gives what it answers, unadorned.
    pub(crate) fn run(&self, statement: &str) -> Result<String, Error> {
        let mut command = Command::new(&self.program);
        // The password goes by the environment: arguments can be seen by everybody.
        let mut url = self.url.clone();
        if let Some(password) = self.url.password() {
            command.env("PGPASSWORD", percent_decode_str(password).decode_utf8_lossy().as_ref());
            url.set_password(None).expect("a URL with a password can have none");
        }
        command.env("PGCONNECT_TIMEOUT", "5");
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]);
        command.arg("--dbname").arg(url.as_str()).arg("--command").arg(statement);
        tool::run(format!("running `{statement}` in Postgres"), &mut command).map(|said| said.trim().to_owned())
    }
}
