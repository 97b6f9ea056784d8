//! Which traces are recorded.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// Records a span without a parent that links to one that is recorded: the transaction that carries a recorded job's
/// outputs belongs to the picture. About all others the sampler of the settings decides.
#[derive(Debug, Clone)]
pub(super) struct ByLinks {
    otherwise: Box<dyn ShouldSample>,
}

impl ByLinks {
    pub(super) fn new(otherwise: Box<dyn ShouldSample>) -> Self {
        Self { otherwise }
    }
}

impl ShouldSample for ByLinks {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let is_root = !parent.is_some_and(|parent| parent.span().span_context().is_valid());
        if is_root && links.iter().any(|link| link.span_context.is_sampled()) {
            return SamplingResult {
                decision: SamplingDecision::RecordAndSample,
                attributes: Vec::new(),
                trace_state: TraceState::default(),
            };
        }
        self.otherwise.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}
