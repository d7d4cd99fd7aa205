//! Ours, through the public API: a subscription's stream, a receipt for each publish.

use std::collections::VecDeque;
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Instant;

use bytes::Bytes;
use pubsub_generic::core::{OverflowPolicy, Publishing, QueueLimits, TopicName};
use pubsub_generic::{DEFAULT_NAME, Json, MqttOptions, MqttProvider, PubSub, QoS, Subscription};
use serde_json::Value;

use crate::Result;
use crate::child::Meter;
use crate::work::{self, FILTER, ROOT, TOPIC, Verb, Work};

pub async fn run(work: Work, mut meter: Meter) -> Result<()> {
    let payload = Bytes::from(work::payload(work.payload));
    match work.verb {
        Verb::Receive | Verb::ReceiveAck => {
            let pubsub = client(&work)?;
            let mut others = Vec::new();
            for other in 1..work.filters {
                let filter = format!("rooms/{other}/temperature");
                others.push(pubsub.subscribe(filter.as_str()).await?);
            }
            let mut subscribers = Vec::new();
            for _ in 0..work.subscribers {
                subscribers.push(subscribe(&pubsub, work.verb).await?);
            }
            meter.start(&work);
            for _ in 0..work.count {
                for messages in &mut subscribers {
                    let message = messages.next().await.ok_or("the stream ended")??;
                    assert_eq!(message.payload.len(), work.payload);
                }
            }
        }
        Verb::Publish => {
            let pubsub = client(&work)?;
            let topic = TopicName::new(TOPIC)?;
            connected(&pubsub, &payload).await?;
            meter.start(&work);
            let mut receipts: Vec<Publishing> = Vec::with_capacity(work.window);
            let mut left = work.count;
            while left > 0 {
                let burst = left.min(work.window);
                receipts.extend((0..burst).map(|_| pubsub.publish(&topic, payload.clone()).send()));
                for receipt in receipts.drain(..) {
                    receipt.await?;
                }
                left -= burst;
            }
        }
        Verb::PublishAck | Verb::PublishExact => {
            let qos = match work.verb {
                Verb::PublishAck => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            };
            let pubsub = client(&work)?;
            let topic = TopicName::new(TOPIC)?;
            connected(&pubsub, &payload).await?;
            let mut waiting: VecDeque<Publishing> = VecDeque::with_capacity(work.window);
            meter.start(&work);
            for _ in 0..work.count {
                if waiting.len() == work.window
                    && let Some(oldest) = waiting.pop_front()
                {
                    oldest.await?;
                }
                let publish = pubsub.publish(&topic, payload.clone());
                waiting.push_back(publish.qos(qos).send());
            }
            for receipt in waiting {
                receipt.await?;
            }
        }
        Verb::PingPong | Verb::PingPongInTask => {
            let pubsub = client(&work)?;
            let mut messages = subscribe(&pubsub, work.verb).await?;
            meter.start(&work);
            for _ in 0..work.count {
                let since = Instant::now();
                pubsub.publish(TOPIC, payload.clone()).await?;
                messages.next().await.ok_or("the stream ended")??;
                meter.round_trip(since);
            }
        }
        Verb::Connect => {
            meter.start(&work);
            for _ in 0..work.count {
                let pubsub = client(&work)?;
                let messages = subscribe(&pubsub, work.verb).await?;
                pubsub.close().await?;
                drop(messages);
            }
        }
        Verb::Idle => {
            let mut held = Vec::new();
            meter.start(&work);
            for _ in 0..work.count {
                let pubsub = client(&work)?;
                let messages = subscribe(&pubsub, work.verb).await?;
                held.push((pubsub, messages));
            }
            meter.report();
        }
    }
    meter.report()
}

/// The same where every payload is made of a value and taken apart into one.
pub async fn run_json(work: Work, mut meter: Meter) -> Result<()> {
    let value: Value = serde_json::from_slice(&work::json(work.payload))?;
    match work.verb {
        Verb::Receive => {
            let pubsub = client(&work)?;
            let mut messages = subscribe(&pubsub, work.verb).await?.json::<Value>();
            meter.start(&work);
            for _ in 0..work.count {
                let message = messages.next().await.ok_or("the stream ended")??;
                assert!(message.value.is_object());
            }
            meter.report()
        }
        Verb::Publish => {
            let pubsub = client(&work)?;
            let topic = TopicName::new(TOPIC)?;
            pubsub
                .publish(TOPIC, Json(&value))
                .qos(QoS::AtLeastOnce)
                .await?;
            meter.start(&work);
            let mut receipts: Vec<Publishing> = Vec::with_capacity(work.window);
            let mut left = work.count;
            while left > 0 {
                let burst = left.min(work.window);
                receipts.extend((0..burst).map(|_| pubsub.publish(&topic, Json(&value)).send()));
                for receipt in receipts.drain(..) {
                    receipt.await?;
                }
                left -= burst;
            }
            meter.report()
        }
        Verb::PingPong | Verb::PingPongInTask => {
            let pubsub = client(&work)?;
            let mut messages = subscribe(&pubsub, work.verb).await?.json::<Value>();
            meter.start(&work);
            for _ in 0..work.count {
                let since = Instant::now();
                pubsub.publish(TOPIC, Json(&value)).await?;
                messages.next().await.ok_or("the stream ended")??;
                meter.round_trip(since);
            }
            meter.report()
        }
        // There is no payload.
        Verb::Connect => run(work, meter).await,
        _ => Err("not with JSON".into()),
    }
}

fn client(work: &Work) -> Result<PubSub> {
    let room = NonZeroUsize::new(100_000).ok_or("zero")?;
    let bytes = NonZeroUsize::new(64 << 20).ok_or("zero")?;
    let mut options = MqttOptions::new(&work.url)
        .queue(room, bytes)
        .configure_session(|session| {
            session.max_subscriptions = session.max_subscriptions.max(work.filters);
            if matches!(work.verb, Verb::PublishAck | Verb::PublishExact)
                && let Ok(window) = u16::try_from(work.window)
                && let Some(window) = NonZeroU16::new(window)
            {
                session.max_in_flight = window;
                session.max_in_flight_qos2 = window;
            }
        });
    if work.url.starts_with("wss:") {
        let root = std::env::var_os(ROOT).ok_or("no root certificate")?;
        options = options.extra_roots_pem(std::fs::read(root)?);
    }
    let pubsub = PubSub::new();
    pubsub.add_provider(DEFAULT_NAME, MqttProvider::new(options)?)?;
    Ok(pubsub)
}

/// A first publish brings the connection up.
async fn connected(pubsub: &PubSub, payload: &Bytes) -> Result<()> {
    pubsub
        .publish(TOPIC, payload.clone())
        .qos(QoS::AtLeastOnce)
        .await?;
    Ok(())
}

async fn subscribe(pubsub: &PubSub, verb: Verb) -> Result<Subscription> {
    let qos = match verb {
        Verb::ReceiveAck => QoS::AtLeastOnce,
        _ => QoS::AtMostOnce,
    };
    // Otherwise a message that is dropped would be waited for.
    let limits = QueueLimits::default().with_policy(OverflowPolicy::End);
    Ok(pubsub.subscribe(FILTER).qos(qos).queue(limits).await?)
}
