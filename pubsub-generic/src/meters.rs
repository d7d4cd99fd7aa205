//! What is reported through the `metrics` facade, or, without that feature, nothing at all.

#[cfg(feature = "metrics")]
pub(crate) use real::Meters;
#[cfg(not(feature = "metrics"))]
pub(crate) use without::Meters;

#[cfg(feature = "metrics")]
mod real {
    use std::fmt;
    use std::sync::OnceLock;
    use std::time::Duration;

    use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
    use pubsub_core::GapCause;

    use crate::inbox::Load;
    use crate::options::DEFAULT_NAME;

    /// Made when the provider has its name, which is their label.
    #[derive(Default)]
    pub(crate) struct Meters(OnceLock<Handles>);

    /// One handle a metric, made once: reporting is then an atomic addition.
    struct Handles {
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

    impl Handles {
        fn new(provider: &str) -> Self {
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
    }

    impl Meters {
        pub(crate) fn name(&self, provider: &str) {
            self.0.get_or_init(|| Handles::new(provider));
        }

        /// A provider that is used by itself has no name of its own.
        fn handles(&self) -> &Handles {
            self.0.get_or_init(|| Handles::new(DEFAULT_NAME))
        }

        pub(crate) fn set_up(&self, up: bool) {
            self.handles().connected.set(f64::from(u8::from(up)));
        }

        pub(crate) fn connected(&self) {
            self.handles().connections.increment(1);
        }

        pub(crate) fn connection_failed(&self) {
            self.handles().failures.increment(1);
        }

        pub(crate) fn renewed(&self) {
            self.handles().renewals.increment(1);
        }

        pub(crate) fn messages_received(&self, messages: usize) {
            self.handles().messages_received.increment(messages as u64);
        }

        pub(crate) fn publishes_settled(&self, delivered: bool, publishes: usize) {
            match delivered {
                true => self
                    .handles()
                    .publishes_delivered
                    .increment(publishes as u64),
                false => self.handles().publishes_failed.increment(publishes as u64),
            }
        }

        pub(crate) fn bytes_received(&self, bytes: usize) {
            self.handles().bytes_received.increment(bytes as u64);
        }

        pub(crate) fn bytes_sent(&self, bytes: usize) {
            self.handles().bytes_sent.increment(bytes as u64);
        }

        pub(crate) fn subscriptions(&self, filters: usize) {
            self.handles().subscriptions.set(filters as f64);
        }

        pub(crate) fn pending(&self, load: Load) {
            self.handles().publishes_pending.set(load.messages as f64);
            self.handles().publish_bytes_pending.set(load.bytes as f64);
        }

        pub(crate) fn round_trip(&self, time: Duration) {
            self.handles().round_trip.record(time.as_secs_f64());
        }

        pub(crate) fn gap(&self, length: Duration, cause: GapCause) {
            match cause {
                GapCause::Planned => self.handles().planned_gap.record(length.as_secs_f64()),
                GapCause::Loss => self.handles().loss_gap.record(length.as_secs_f64()),
                GapCause::Restart => self.handles().restart_gap.record(length.as_secs_f64()),
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

    #[derive(Debug, Default)]
    pub(crate) struct Meters(());

    #[allow(clippy::unused_self, reason = "the same calls as with the feature")]
    impl Meters {
        pub(crate) fn name(&self, _: &str) {}

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
