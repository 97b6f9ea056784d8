//! Where traces go, and how many.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use axum::http::Uri;
use opentelemetry_sdk::trace::{Sampler, ShouldSample};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use crate::settings::Source;

/// The one protocol that is spoken.
const PROTOCOL: &str = "http/protobuf";

/// Where below the endpoint traces are taken (OTLP specification, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";

/// Where traces go, and how many. The names and meanings are those of OpenTelemetry's own variables.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The collector's base URL; none: no traces, unless [`Self::traces_endpoint`] is set.
    pub endpoint: Option<Uri>,
    /// The whole URL that traces go to.
    pub traces_endpoint: Option<Uri>,
    /// Headers of every delivery, such as the key of whoever takes them.
    pub headers: BTreeMap<String, SecretString>,
    /// Which traces are recorded.
    pub sampling: Sampling,
    /// What the collector is told that this service is called.
    pub service_name: Option<String>,
    /// How many ended spans may wait to be delivered; more are dropped, and counted.
    pub queue: usize,
}

/// Which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    rule: Rule,
    ratio: f64,
}

/// A sampler by its standard name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    AlwaysOn,
    AlwaysOff,
    Ratio,
    ParentOrOn,
    ParentOrOff,
    ParentOrRatio,
}

const RULES: [(&str, Rule); 6] = [
    ("always_on", Rule::AlwaysOn),
    ("always_off", Rule::AlwaysOff),
    ("traceidratio", Rule::Ratio),
    ("parentbased_always_on", Rule::ParentOrOn),
    ("parentbased_always_off", Rule::ParentOrOff),
    ("parentbased_traceidratio", Rule::ParentOrRatio),
];

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = RULES.iter().find(|(_, rule)| rule == self);
        f.write_str(known.map_or("", |(name, _)| name))
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = RULES.iter().find(|(name, _)| *name == text);
        known.map(|(_, rule)| *rule).ok_or_else(|| {
            let names: Vec<_> = RULES.iter().map(|(name, _)| *name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

impl Sampling {
    /// The SDK's sampler of that name.
    pub(super) fn sampler(self) -> Box<dyn ShouldSample> {
        let parent = |root: Sampler| Sampler::ParentBased(Box::new(root));
        Box::new(match self.rule {
            Rule::AlwaysOn => Sampler::AlwaysOn,
            Rule::AlwaysOff => Sampler::AlwaysOff,
            Rule::Ratio => Sampler::TraceIdRatioBased(self.ratio),
            Rule::ParentOrOn => parent(Sampler::AlwaysOn),
            Rule::ParentOrOff => parent(Sampler::AlwaysOff),
            Rule::ParentOrRatio => parent(Sampler::TraceIdRatioBased(self.ratio)),
        })
    }
}

impl Settings {
    /// Reads `trace.*`.
    pub fn read(source: &mut Source) -> Self {
        let endpoint = source.read_opt(
            "trace.endpoint",
            "Where traces go over OTLP: a collector's base URL, such as `http://collector:4318`; also \
             `OTEL_EXPORTER_OTLP_ENDPOINT`; without it none are told",
        );
        let traces_endpoint = source.read_opt(
            "trace.traces_endpoint",
            "The whole URL that traces go to, where it is not `trace.endpoint` with `/v1/traces`; also \
             `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`",
        );
        let protocol: String = source.read(
            "trace.protocol",
            PROTOCOL.to_owned(),
            "How the collector is spoken to: `http/protobuf` and no other; also `OTEL_EXPORTER_OTLP_PROTOCOL`",
        );
        let headers = source.secret(
            "trace.headers",
            "Headers of every delivery of traces: `name=value` with commas between, values percent-encoded; also \
             `OTEL_EXPORTER_OTLP_HEADERS`",
        );
        let rule = source.read(
            "trace.sampler",
            Rule::ParentOrOn,
            "Which traces are recorded, by OpenTelemetry's name of the sampler; also `OTEL_TRACES_SAMPLER`",
        );
        let ratio = source.read(
            "trace.sampler_arg",
            1.0,
            "The share of traces that the samplers by ratio record, from 0 to 1; also `OTEL_TRACES_SAMPLER_ARG`",
        );
        let service_name = source.read_opt(
            "trace.service_name",
            "What the collector is told that this service is called, instead of `mailtide-poller` and so on; also \
             `OTEL_SERVICE_NAME`",
        );
        let queue = source.read(
            "trace.queue",
            2_048_usize,
            "Ended spans that may wait to be delivered; more are dropped and counted; also `OTEL_BSP_MAX_QUEUE_SIZE`",
        );
        for (key, url) in [("trace.endpoint", &endpoint), ("trace.traces_endpoint", &traces_endpoint)] {
            if let Some(url) = url
                && !is_http(url)
            {
                source.error(key, "expected a URL that begins with http:// or https://");
            }
        }
        // What nobody speaks may be said in any protocol: the variable is often set for a whole machine.
        if (endpoint.is_some() || traces_endpoint.is_some()) && protocol != PROTOCOL {
            source.error(
                "trace.protocol",
                format!("must be {PROTOCOL}: let the collector take OTLP over HTTP, port 4318"),
            );
        }
        if !(0.0..=1.0).contains(&ratio) {
            source.error("trace.sampler_arg", "must be from 0 to 1");
        }
        if queue == 0 {
            source.error("trace.queue", "must be at least 1");
        }
        let headers = headers.map(|text| pairs(text.expose_secret())).unwrap_or_else(|| Some(BTreeMap::new()));
        if headers.is_none() {
            source.error("trace.headers", "expected name=value, with commas between several");
        }
        Self {
            endpoint,
            traces_endpoint,
            headers: headers.unwrap_or_default(),
            sampling: Sampling { rule, ratio },
            service_name,
            queue: queue.max(1),
        }
    }

    /// The whole URL that traces go to.
    pub(super) fn endpoint(&self) -> Option<String> {
        match (&self.traces_endpoint, &self.endpoint) {
            (Some(whole), _) => Some(whole.to_string()),
            (None, Some(base)) => Some(format!("{}{PATH}", base.to_string().trim_end_matches('/'))),
            (None, None) => None,
        }
    }
}

fn is_http(url: &Uri) -> bool {
    matches!(url.scheme_str(), Some("http" | "https")) && url.authority().is_some()
}

/// `name=value,name=value`, values percent-encoded, as W3C Baggage writes them.
fn pairs(text: &str) -> Option<BTreeMap<String, SecretString>> {
    let filled = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), SecretString::from(value.into_owned())))
    };
    filled.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let mut source = Source::from_parts(None, variables.iter().copied());
        let settings = Settings::read(&mut source);
        match source.finish() {
            Ok(_) => Ok(settings),
            Err(problems) => Err(problems.into_iter().map(|problem| problem.key).collect()),
        }
    }

    #[test]
    fn without_an_endpoint_nothing_is_told_whatever_else_is_set() {
        let settings = read(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_SERVICE_NAME", "x")]).unwrap();
        assert_eq!(settings.endpoint(), None);
    }

    #[test]
    fn the_standard_variables_are_understood() {
        let settings = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/otlp/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x = y"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ])
        .unwrap();
        assert_eq!(settings.endpoint().as_deref(), Some("http://collector:4318/otlp/v1/traces"));
        let headers: Vec<_> =
            settings.headers.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
        assert_eq!(headers, [("api-key", "a b"), ("x", "y")]);
        assert_eq!(settings.sampling, Sampling { rule: Rule::ParentOrRatio, ratio: 0.25 });
        let whole = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/t")];
        assert_eq!(read(&whole).unwrap().endpoint().as_deref(), Some("http://b/t"));
    }

    #[test]
    fn what_cannot_be_is_told_by_name() {
        let problems = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "key"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ]);
        let keys =
            ["trace.endpoint", "trace.headers", "trace.protocol", "trace.queue", "trace.sampler", "trace.sampler_arg"];
        assert_eq!(problems.unwrap_err(), keys);
    }
}
