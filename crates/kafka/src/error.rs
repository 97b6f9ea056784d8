//! What an error of librdkafka means for us. The only place that reads its flags.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What librdkafka said, as the source of our errors.
#[derive(Clone)]
pub struct Cause(KafkaError);

impl Cause {
    /// Whether the brokers could not be reached or did not answer in time: waiting may help, nothing else will.
    pub fn is_unreachable(&self) -> bool {
        use RDKafkaErrorCode::{
            AllBrokersDown, BrokerNotAvailable, BrokerTransportFailure, CoordinatorLoadInProgress,
            CoordinatorNotAvailable, LeaderNotAvailable, MessageTimedOut, OperationTimedOut, QueueFull,
            RequestTimedOut, Resolve, TimedOutQueue, WaitingForCoordinator,
        };
        matches!(
            self.0.rdkafka_error_code(),
            Some(
                AllBrokersDown
                    | BrokerNotAvailable
                    | BrokerTransportFailure
                    | CoordinatorLoadInProgress
                    | CoordinatorNotAvailable
                    | LeaderNotAvailable
                    | MessageTimedOut
                    | OperationTimedOut
                    | QueueFull
                    | RequestTimedOut
                    | Resolve
                    | TimedOutQueue
                    | WaitingForCoordinator
            )
        )
    }

    /// Whether trying again could not help: the request itself was refused.
    pub fn is_permanent(&self) -> bool {
        use RDKafkaErrorCode::{
            Authentication, ClusterAuthorizationFailed, GroupAuthorizationFailed, InvalidMessage, InvalidRecord,
            InvalidTopic, MessageSizeTooLarge, PolicyViolation, SaslAuthenticationFailed, TopicAuthorizationFailed,
            TransactionalIdAuthorizationFailed, UnknownPartition, UnknownTopic,
        };
        matches!(
            self.0.rdkafka_error_code(),
            Some(
                Authentication
                    | ClusterAuthorizationFailed
                    | GroupAuthorizationFailed
                    | InvalidMessage
                    | InvalidRecord
                    | InvalidTopic
                    | MessageSizeTooLarge
                    | PolicyViolation
                    | SaslAuthenticationFailed
                    | TopicAuthorizationFailed
                    | TransactionalIdAuthorizationFailed
                    | UnknownPartition
                    | UnknownTopic
            )
        )
    }

    /// Whether the brokers do not take us for who we say we are, or we them.
    pub fn is_distrust(&self) -> bool {
        use RDKafkaErrorCode::{
            Authentication, IllegalSASLState, SSL, SaslAuthenticationFailed, UnsupportedSASLMechanism,
        };
        matches!(
            self.0.rdkafka_error_code(),
            Some(Authentication | IllegalSASLState | SaslAuthenticationFailed | SSL | UnsupportedSASLMechanism)
        )
    }

    /// Whether the brokers know us and do not let us.
    pub fn is_denied(&self) -> bool {
        self.0.rdkafka_error_code().is_some_and(is_denied)
    }

    /// Whether it is our transactional id that they do not let us have.
    pub(crate) fn is_denied_transactional_id(&self) -> bool {
        self.0.rdkafka_error_code() == Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed)
    }

    /// Whether the broker knows no such topic.
    pub fn is_unknown_topic(&self) -> bool {
        use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
        matches!(self.0.rdkafka_error_code(), Some(UnknownPartition | UnknownTopic | UnknownTopicOrPartition))
    }

    /// Whether the group has members, so that nobody else may say where it stands.
    pub fn is_group_in_use(&self) -> bool {
        use RDKafkaErrorCode::{IllegalGeneration, NonEmptyGroup, RebalanceInProgress, UnknownMemberId};
        let in_use = [UnknownMemberId, IllegalGeneration, RebalanceInProgress, NonEmptyGroup];
        self.0.rdkafka_error_code().is_some_and(|code| in_use.contains(&code))
    }

    /// Whether a newer producer with the same transactional id has taken over.
    pub fn is_fenced(&self) -> bool {
        use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
        matches!(self.0.rdkafka_error_code(), Some(Fenced | InvalidProducerEpoch | ProducerFenced))
    }
}

/// Whether it says that we lack a right.
fn is_denied(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        ClusterAuthorizationFailed, GroupAuthorizationFailed, TopicAuthorizationFailed,
        TransactionalIdAuthorizationFailed,
    };
    matches!(
        code,
        ClusterAuthorizationFailed
            | GroupAuthorizationFailed
            | TopicAuthorizationFailed
            | TransactionalIdAuthorizationFailed
    )
}

/// Whether the local queue was full, and nothing was taken.
pub(crate) fn is_queue_full(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull))
}

impl From<KafkaError> for Cause {
    fn from(error: KafkaError) -> Self {
        Self(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {}

/// What to do about an error in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same call again with the same arguments, a bounded number of times.
    Retry,
    /// Abort, then publish the same outputs again for the assignments that still stand.
    AbortAndRedo,
    /// Drop the lane: fenced, fatal, or the outcome is unknown.
    Restart,
}

/// Sorts an error of a transactional call.
///
/// A fenced producer is checked before the flags: librdkafka may call it abortable, yet whoever fenced it owns the
/// transactional id now. What is not known restarts the lane, which is always right and merely slow.
pub(crate) fn classify(error: &KafkaError) -> Verdict {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, OperationTimedOut, ProducerFenced};
    match error {
        KafkaError::Transaction(error) if error.is_fatal() => Verdict::Restart,
        KafkaError::Transaction(error) if matches!(error.code(), Fenced | ProducerFenced | InvalidProducerEpoch) => {
            Verdict::Restart
        }
        // To redo it would be denied again, at once and for ever: the lane comes back at its own pace, and says why.
        KafkaError::Transaction(inner) if is_denied(inner.code()) => Verdict::Restart,
        KafkaError::Transaction(error) if error.txn_requires_abort() => Verdict::AbortAndRedo,
        KafkaError::Transaction(error) if error.is_retriable() => Verdict::Retry,
        // The binding flushes before it commits; nothing was committed then.
        KafkaError::Flush(OperationTimedOut) => Verdict::AbortAndRedo,
        // A record that librdkafka refuses to take says nothing of the transaction: the next call does.
        KafkaError::MessageProduction(_) => Verdict::AbortAndRedo,
        _ => Verdict::Restart,
    }
}
