//! What is reported through the `metrics` facade, or, without that feature, nothing at all.

#[cfg(feature = "metrics")]
pub(crate) use real::Meters;
#[cfg(not(feature = "metrics"))]
pub(crate) use without::Meters;

#[cfg(feature = "metrics")]
mod real {
    use std::fmt;
    use std::time::Duration;

    use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
    use pubsub_core::GapCause;

    use crate::inbox::Load;

    /// One handle a metric, made once: reporting is then an atomic addition.
    pub(crate) struct Meters {
        connected: Gauge,
        connections: Counter,
        failures: Counter,
        renewals: Counter,
        messages_received: Counter,
        publishes_delivered: Counter,
        publishes_failed: Counter,
        bytes_received: Counter,
        bytes_sent: Counter,
        publishes_pending: Gauge,
        publish_bytes_pending: Gauge,
        subscriptions: Gauge,
        round_trip: Histogram,
        planned_gap: Histogram,
        loss_gap: Histogram,
        restart_gap: Histogram,
    }

    impl Meters {
        pub(crate) fn new(provider: &str) -> Self {
            let name = || provider.to_owned();
            let publishes = |outcome: &'static str| counter!("pubsub_mqtt_publishes_total", "provider" => name(), "outcome" => outcome);
            let gap = |cause: &'static str| histogram!("pubsub_mqtt_gap_seconds", "provider" => name(), "cause" => cause);
            Self {
                connected: gauge!("pubsub_mqtt_connected", "provider" => name()),
                connections: counter!("pubsub_mqtt_connections_total", "provider" => name()),
                failures: counter!("pubsub_mqtt_connection_failures_total", "provider" => name()),
                renewals: counter!("pubsub_mqtt_renewals_total", "provider" => name()),
                messages_received: counter!("pubsub_mqtt_messages_received_total", "provider" => name()),
                publishes_delivered: publishes("delivered"),
                publishes_failed: publishes("failed"),
                bytes_received: counter!("pubsub_mqtt_received_bytes_total", "provider" => name()),
                bytes_sent: counter!("pubsub_mqtt_sent_bytes_total", "provider" => name()),
                publishes_pending: gauge!("pubsub_mqtt_publishes_pending", "provider" => name()),
                publish_bytes_pending: gauge!("pubsub_mqtt_publishes_pending_bytes", "provider" => name()),
                subscriptions: gauge!("pubsub_mqtt_subscriptions", "provider" => name()),
                round_trip: histogram!("pubsub_mqtt_round_trip_seconds", "provider" => name()),
                planned_gap: gap("planned"),
                loss_gap: gap("loss"),
                restart_gap: gap("restart"),
            }
        }

        pub(crate) fn set_up(&self, up: bool) {
            self.connected.set(f64::from(u8::from(up)));
        }

        pub(crate) fn connected(&self) {
            self.connections.increment(1);
        }

        pub(crate) fn connection_failed(&self) {
            self.failures.increment(1);
        }

        pub(crate) fn renewed(&self) {
            self.renewals.increment(1);
        }

        pub(crate) fn messages_received(&self, messages: usize) {
            self.messages_received.increment(messages as u64);
        }

        pub(crate) fn publishes_settled(&self, delivered: bool, publishes: usize) {
            match delivered {
                true => self.publishes_delivered.increment(publishes as u64),
                false => self.publishes_failed.increment(publishes as u64),
            }
        }

        pub(crate) fn bytes_received(&self, bytes: usize) {
            self.bytes_received.increment(bytes as u64);
        }

        pub(crate) fn bytes_sent(&self, bytes: usize) {
            self.bytes_sent.increment(bytes as u64);
        }

        pub(crate) fn subscriptions(&self, filters: usize) {
            self.subscriptions.set(filters as f64);
        }

        pub(crate) fn pending(&self, load: Load) {
            self.publishes_pending.set(load.messages as f64);
            self.publish_bytes_pending.set(load.bytes as f64);
        }

        pub(crate) fn round_trip(&self, time: Duration) {
            self.round_trip.record(time.as_secs_f64());
        }

        pub(crate) fn gap(&self, length: Duration, cause: GapCause) {
            match cause {
                GapCause::Planned => self.planned_gap.record(length.as_secs_f64()),
                GapCause::Loss => self.loss_gap.record(length.as_secs_f64()),
                GapCause::Restart => self.restart_gap.record(length.as_secs_f64()),
            }
        }
    }

    impl fmt::Debug for Meters {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Meters").finish_non_exhaustive()
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod without {
    use std::time::Duration;

    use pubsub_core::GapCause;

    #[derive(Debug)]
    pub(crate) struct Meters;

    #[allow(clippy::unused_self, reason = "the same calls as with the feature")]
    impl Meters {
        pub(crate) fn new(_: &str) -> Self {
            Self
        }

        pub(crate) fn set_up(&self, _: bool) {}

        pub(crate) fn connected(&self) {}

        pub(crate) fn connection_failed(&self) {}

        pub(crate) fn renewed(&self) {}

        pub(crate) fn messages_received(&self, _: usize) {}

        pub(crate) fn publishes_settled(&self, _: bool, _: usize) {}

        pub(crate) fn bytes_received(&self, _: usize) {}

        pub(crate) fn bytes_sent(&self, _: usize) {}

        pub(crate) fn subscriptions(&self, _: usize) {}

        pub(crate) fn round_trip(&self, _: Duration) {}

        pub(crate) fn gap(&self, _: Duration, _: GapCause) {}
    }
}
