//! A session that outlives its provider.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::Duration;

use common::{client, credentials, options, start};
use pubsub_aws_iot::core::{Delivered, PublishStage};
use pubsub_aws_iot::{CredentialCell, OfflinePolicy, QoS, SessionMode};
use pubsub_generic::MemorySessionStore;

#[tokio::test]
async fn what_one_provider_stored_the_next_one_sends() {
    let (_broker, gateway) = start().await;
    let store = MemorySessionStore::new();
    let cell = CredentialCell::new();
    let provider = || {
        let options = options(&gateway)
            .credentials(cell.clone())
            .client_id("greenhouse-7")
            .session(SessionMode::Persistent {
                expiry: Duration::from_secs(600),
            })
            .offline(OfflinePolicy::Queue)
            .configure_mqtt(|mqtt| mqtt.store(store.clone()));
        client(options)
    };
    // Nobody has signed in, so nothing can be sent.
    let (pubsub, first) = provider();
    let alarm = pubsub.publish("alarm", "frost").qos(QoS::AtLeastOnce);
    let mut ticket = alarm.send_each().unwrap().pop().unwrap();
    ticket.receipt.reached(PublishStage::Stored).await.unwrap();
    assert!(first.take_restored().is_empty());
    drop((pubsub, first));
    ticket.receipt.await.unwrap_err();
    assert!(gateway.attempts().is_empty());

    let (pubsub, second) = provider();
    let [restored] = <[_; 1]>::try_from(second.take_restored()).unwrap();
    assert_eq!(restored.topic.as_str(), "alarm");
    assert!(second.take_restored().is_empty(), "once");
    cell.sign_in(credentials());
    second.connect().await.unwrap();
    assert_eq!(restored.receipt.await.unwrap(), Delivered::Confirmed);
    assert_eq!(gateway.attempts().len(), 1);
    pubsub.close().await.unwrap();
}
