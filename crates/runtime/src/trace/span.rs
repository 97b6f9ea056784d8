//! Spans, that cost a branch where nobody wants them.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::SystemTime;

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use pin_project_lite::pin_project;

use super::{Kind, TRACER};

/// The header that a trace travels in (<https://www.w3.org/TR/trace-context/>).
const TRACE_PARENT: &str = "traceparent";

/// Whether traces are told at all.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// The `traceparent` of what is worked on here; none where that is no span.
pub fn current() -> Option<String> {
    if !is_on() {
        return None;
    }
    Context::map_current(|context| text(context.span().span_context()))
}

/// What a span belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Parent<'a> {
    /// What is worked on here ([`Span::scope`]); nothing: the span begins a trace.
    Current,
    /// What is worked on here; where that is nothing, there is no span: what is only a step of something.
    Within,
    /// The span that this `traceparent` names; none, or none that can be read: the span begins a trace.
    Remote(Option<&'a str>),
    /// A span of this process.
    Of(&'a Span),
    /// Nothing: the span begins a trace.
    Root,
}

/// A pointer at a span of whatever trace.
#[derive(Debug, Clone)]
pub struct Link(SpanContext);

impl Link {
    /// To the span that a `traceparent` names; none where that cannot be read or is not recorded.
    pub fn remote(parent: &str) -> Option<Self> {
        let context = remote(parent);
        let span = context.span().span_context().clone();
        span.is_sampled().then_some(Self(span))
    }
}

/// How a span begins.
#[derive(Debug)]
pub struct Beginning<'a> {
    /// What part it has in a conversation.
    pub kind: Kind,
    /// What it is called, of few words: what differs each time is an attribute.
    pub name: Cow<'static, str>,
    /// What it belongs to.
    pub parent: Parent<'a>,
    /// When it began; none: now.
    pub at: Option<SystemTime>,
    /// What else it has to do with.
    pub links: Vec<Link>,
}

/// Something that takes time, from its making to its drop. Where no traces are told it is nothing.
#[derive(Clone, Default)]
pub struct Span(Option<Owned>);

/// The span within its context. The span ends when the last owner of it goes.
#[derive(Clone)]
struct Owned {
    context: Context,
    _end: std::sync::Arc<End>,
}

struct End(Context);

impl Drop for End {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

impl Span {
    /// Begins a span now.
    pub fn begin(kind: Kind, name: &'static str, parent: Parent<'_>) -> Self {
        if !is_on() {
            return Self(None);
        }
        Self::with(Beginning { kind, name: name.into(), parent, at: None, links: Vec::new() })
    }

    /// Begins a span as is said. To be asked first is whether any [are told](is_on), where saying it costs anything.
    pub fn with(beginning: Beginning<'_>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let Beginning { kind, name, parent, at, links } = beginning;
        let parent = match parent {
            Parent::Current => Context::current(),
            Parent::Within => match Context::current() {
                whole if whole.has_active_span() => whole,
                _ => return Self(None),
            },
            Parent::Remote(Some(parent)) => remote(parent),
            Parent::Of(Self(Some(parent))) => parent.context.clone(),
            Parent::Of(Self(None)) | Parent::Remote(None) | Parent::Root => Context::new(),
        };
        let mut builder = tracer.span_builder(name).with_kind(kind);
        builder.start_time = at;
        let links = links.into_iter().map(|Link(span)| opentelemetry::trace::Link::with_context(span));
        let span = tracer.build_with_context(builder.with_links(links.collect()), &parent);
        let context = parent.with_span(span);
        Self(Some(Owned { _end: std::sync::Arc::new(End(context.clone())), context }))
    }

    /// Whether what is said of it gets anywhere.
    pub fn is_recording(&self) -> bool {
        self.0.as_ref().is_some_and(|owned| owned.context.span().is_recording())
    }

    /// Notes something of it: an id, a number, or a word of a closed set.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(owned) = self.0.as_ref().filter(|_| self.is_recording()) {
            owned.context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// The same for what takes work to say.
    pub fn set_with<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if self.is_recording() {
            self.set(key, value());
        }
    }

    /// Notes that something happened now.
    pub fn event(&self, name: &'static str) {
        if let Some(owned) = &self.0 {
            owned.context.span().add_event(name, Vec::new());
        }
    }

    /// Notes that it failed, by the class of what befell it.
    pub fn fail(&self, class: impl Into<Cow<'static, str>>) {
        if let Some(owned) = self.0.as_ref().filter(|_| self.is_recording()) {
            let class = class.into();
            owned.context.span().set_attribute(KeyValue::new("error.type", class.clone()));
            owned.context.span().set_status(Status::error(class));
        }
    }

    /// Its name for those elsewhere whose spans belong to it; none where no traces are told.
    pub fn traceparent(&self) -> Option<String> {
        text(self.0.as_ref()?.context.span().span_context())
    }

    /// A pointer at it; none where it is not recorded.
    pub fn link(&self) -> Option<Link> {
        let span = self.0.as_ref()?.context.span().span_context().clone();
        span.is_sampled().then_some(Link(span))
    }

    /// Points from it at another span.
    pub fn add_link(&self, to: Option<Link>) {
        if let (Some(owned), Some(Link(span))) = (&self.0, to) {
            owned.context.span().add_link(span, Vec::new());
        }
    }

    /// Works on `future` as a part of this span: spans that begin within it belong to this one.
    pub fn scope<F: Future>(&self, future: F) -> Scope<F> {
        Scope { context: self.0.as_ref().map(|owned| owned.context.clone()), future }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.traceparent()).finish()
    }
}

pin_project! {
    /// A future that is worked on as a part of a span.
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F> {
        context: Option<Context>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _attached = this.context.clone().map(Context::attach);
        Poll::Ready(ready!(this.future.poll(cx)))
    }
}

/// The context of a span elsewhere; of none where the text cannot be read.
fn remote(parent: &str) -> Context {
    struct Header<'a>(&'a str);
    impl Extractor for Header<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == TRACE_PARENT).then_some(self.0)
        }

        fn keys(&self) -> Vec<&str> {
            vec![TRACE_PARENT]
        }
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(parent))
}

fn text(span: &SpanContext) -> Option<String> {
    let flags = u8::from(span.is_sampled());
    span.is_valid().then(|| format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_no_traces_are_told_a_span_is_nothing() {
        let span = Span::begin(Kind::Internal, "nothing", Parent::Root);
        assert!(!span.is_recording() && span.traceparent().is_none() && span.link().is_none());
        assert_eq!(span.scope(async { current() }).await, None);
    }

    #[test]
    fn what_is_no_traceparent_points_nowhere() {
        assert!(Link::remote("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_some());
        assert!(Link::remote("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").is_none(), "not recorded");
        for text in ["", "00", "00-0-0-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "é-é-é-é"] {
            assert!(Link::remote(text).is_none(), "{text}");
        }
    }
}
