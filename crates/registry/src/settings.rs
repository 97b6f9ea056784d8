//! Where the schema registry is.

use std::path::PathBuf;
use std::time::Duration;

use runtime::settings::Source;
use secrecy::SecretString;
use url::Url;

/// How the schema registry is reached, if there is one.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its base URL; none: ids come from the manifest, and ingress answers as a registry would.
    pub url: Option<Url>,
    /// The user to authenticate as, by HTTP's Basic scheme.
    pub user: Option<String>,
    /// That user's password.
    pub password: Option<SecretString>,
    /// A PEM file with the certificate authority of the registry, beside the system's own.
    pub ca_file: Option<PathBuf>,
    /// How long one call may take.
    pub timeout: Duration,
}

impl Settings {
    /// Reads `registry.*`.
    pub fn read(source: &mut Source) -> Self {
        let settings = Self {
            url: source.read_opt(
                "registry.url",
                "A schema registry (Confluent's interface) to register schemas in at start; else ingress answers as one",
            ),
            user: source.read_opt("registry.user", "The user to authenticate as at the schema registry"),
            password: source.secret("registry.password", "That user's password"),
            ca_file: source
                .read_opt::<String>(
                    "registry.ca_file",
                    "A PEM file with the certificate authority of the schema registry",
                )
                .map(PathBuf::from),
            timeout: source.duration(
                "registry.timeout",
                Duration::from_secs(10),
                "How long one call of the schema registry may take",
            ),
        };
        settings.check(source);
        settings
    }

    fn check(&self, source: &mut Source) {
        if let Some(url) = &self.url {
            if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
                source.error("registry.url", "must be an http or https URL without a query");
            }
            // Settings are logged.
            if !url.username().is_empty() || url.password().is_some() {
                source.error("registry.url", "must not carry a user; set registry.user and registry.password");
            }
        }
        if self.user.is_some() != self.password.is_some() {
            source.error("registry.user", "goes with registry.password: set both or neither");
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.timeout) {
            source.error("registry.timeout", "must be from 100ms to 60s");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(variables: &[(&str, &str)]) -> Vec<String> {
        let mut source = Source::from_parts(None, variables.iter().copied());
        let _ = Settings::read(&mut source);
        source.finish().err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_url_is_known_by_the_name_that_others_use_and_carries_no_password() {
        let set = [
            ("SCHEMA_REGISTRY_URL", "https://registry.example/api"),
            ("MAILTIDE_REGISTRY_USER", "mailtide"),
            ("MAILTIDE_REGISTRY_PASSWORD", "hunter2"),
        ];
        assert_eq!(problems(&set), [""; 0]);
        assert_eq!(problems(&[]), [""; 0]);
        for (variables, told) in [
            (&[("SCHEMA_REGISTRY_URL", "http://u:hunter2@registry.example")] as &[_], "must not carry a user"),
            (&[("SCHEMA_REGISTRY_URL", "ftp://registry.example")], "must be an http or https URL"),
            (&[("MAILTIDE_REGISTRY_USER", "mailtide")], "set both or neither"),
            (&[("MAILTIDE_REGISTRY_TIMEOUT", "1h")], "from 100ms to 60s"),
        ] {
            let problems = problems(variables);
            assert!(problems.len() == 1 && problems[0].contains(told), "{variables:?}: {problems:?}");
        }
    }
}
