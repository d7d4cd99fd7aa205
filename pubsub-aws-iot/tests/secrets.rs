//! No secret is shown or logged, whatever is rendered.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use common::{KEY, client, credentials, options, start};
use pubsub_aws_iot::{AwsCredentials, DEFAULT_NAME};
use tracing::field::{Field, Visit};
use tracing::span;

/// Everything that is logged, by anybody, at every level.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<String>>);

impl tracing::Subscriber for Everything {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut Writer(&mut self.0.lock().unwrap()));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Writer(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut log = self.0.lock().unwrap();
        let _ = write!(log, "\n{}", event.metadata().target());
        event.record(&mut Writer(&mut log));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Writer<'a>(&'a mut String);

impl Visit for Writer<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

fn no_secret_in(text: &str) {
    for secret in ["marker", "X-Amz-Signature", "X-Amz-Security-Token"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// An error, and all that is below it.
fn rendered(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error:?}");
    let mut next = Some(error);
    while let Some(error) = next {
        let _ = write!(text, "\n{error}\n{error:?}");
        next = error.source();
    }
    text
}

#[tokio::test]
async fn secrets_are_neither_shown_nor_logged() {
    let everything = Everything::default();
    let _guard = tracing::subscriber::set_default(everything.clone());
    let (_broker, gateway) = start().await;
    gateway
        .clock()
        .run_ahead(std::time::Duration::from_secs(3600));

    let given = options(&gateway);
    no_secret_in(&format!("{given:?}"));
    let (pubsub, provider) = client(given);
    provider.connect().await.unwrap();
    pubsub.publish("a", "x").await.unwrap();
    no_secret_in(&format!("{provider:?} {:?}", credentials()));

    let wrong = AwsCredentials::new(KEY, "marker-wrong").session_token("marker-wrong-token");
    let (pubsub, provider) = client(options(&gateway).credentials(wrong));
    no_secret_in(&rendered(&provider.connect().await.unwrap_err()));
    let status = pubsub.connection(DEFAULT_NAME).unwrap().current();
    no_secret_in(&format!("{status:?}"));
    let (_pubsub, provider) =
        client(options(&gateway).credentials(AwsCredentials::new(KEY, "marker\n")));
    no_secret_in(&rendered(&provider.connect().await.unwrap_err()));

    let log = everything.0.lock().unwrap().clone();
    assert!(log.contains("pubsub_aws_iot"), "{log}");
    assert!(log.contains("pubsub_generic"), "{log}");
    no_secret_in(&log);
}
