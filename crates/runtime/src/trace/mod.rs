//! Traces: spans over OTLP to whoever collects them.
//!
//! Off unless an endpoint is set, and then a span costs a branch. The names and attributes of spans follow
//! OpenTelemetry's semantic conventions; `docs/tracing.md` draws a trace. What goes into an attribute is an id, a
//! number or a word from a closed set: never a token, an address, or anything of a mail.

mod export;
mod sampler;
mod settings;
mod span;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanExporter as _};
use secrecy::ExposeSecret;

pub use opentelemetry::trace::SpanKind as Kind;
pub use settings::{Sampling, Settings};
pub use span::{Beginning, Link, Parent, Span, current, is_on};

use export::{Exporting, Queue};
use sampler::ByLinks;

/// How long one delivery to the collector may take, repetitions included.
const DELIVERY: Duration = Duration::from_secs(10);

/// What makes spans; unset: nothing does.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Why no traces can be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The exporter does not take the settings.
    #[error("setting up the export of traces to {endpoint}: {detail}; check the settings `trace.*`")]
    Exporter {
        /// Where they were to go.
        endpoint: String,
        /// What the exporter said.
        detail: String,
    },
    /// This process tells traces already.
    #[error("traces are told already by this process")]
    Started,
}

/// The traces that this process tells, if it does.
#[derive(Debug)]
#[must_use = "what is left of them is delivered by `shut_down`"]
pub struct Traces(Option<Exporting>);

impl Traces {
    /// No traces are told.
    pub const NONE: Self = Self(None);

    /// Delivers the spans that have ended, for at most as long as `within`. Those that end later are lost, and counted.
    pub async fn shut_down(self, within: Duration) {
        if let Some(exporting) = self.0 {
            exporting.stop(within).await;
        }
    }
}

/// Begins to tell traces, once a process, if an endpoint is set. `service` and `instance` are what the collector is told of
/// who speaks, unless the settings name the service. To be called on the runtime that exports.
///
/// # Errors
/// When the exporter refuses the settings, or traces are told already.
pub fn init(settings: &Settings, service: &str, instance: &str) -> Result<Traces, Error> {
    let Some(endpoint) = settings.endpoint() else { return Ok(Traces::NONE) };
    let name = settings.service_name.clone().unwrap_or_else(|| service.to_owned());
    // The builder adds what OTEL_RESOURCE_ATTRIBUTES says.
    let resource = Resource::builder()
        .with_attributes([
            KeyValue::new("service.namespace", "mailtide"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ])
        .with_service_name(name)
        .build();
    let headers = settings.headers.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(&endpoint)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(DELIVERY)
        .with_headers(headers.collect())
        .build();
    let mut exporter = exporter.map_err(|error| Error::Exporter { endpoint, detail: error.to_string() })?;
    exporter.set_resource(&resource);
    let (queue, exporting) = export::start(exporter, settings.queue);
    TRACER.set(tracer(queue, settings.sampling, resource)).map_err(|_| Error::Started)?;
    Ok(Traces(Some(exporting)))
}

fn tracer(queue: Queue, sampling: Sampling, resource: Resource) -> SdkTracer {
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue)
        .with_sampler(ByLinks::new(sampling.sampler()))
        .with_resource(resource)
        .build();
    provider.tracer("mailtide")
}
