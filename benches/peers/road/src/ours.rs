//! Ours, through the public API: a subscription's stream, a receipt for each publish.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Instant;

use bytes::Bytes;
use pubsub_generic::core::{Publishing, QueueLimits};
use pubsub_generic::{DEFAULT_NAME, MqttOptions, MqttProvider, PubSub, QoS, Subscription};

use crate::child::{FILTER, Meter, TOPIC, Verb, Work};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub async fn run(work: Work, mut meter: Meter) -> Result<()> {
    let payload = Bytes::from(vec![b'x'; work.payload]);
    match work.verb {
        Verb::Receive | Verb::ReceiveAck => {
            let pubsub = client(&work)?;
            let mut messages = subscribe(&pubsub, work.verb).await?;
            meter.start(&work);
            for _ in 0..work.count {
                let message = messages.next().await.ok_or("the stream ended")??;
                assert_eq!(message.payload.len(), work.payload);
            }
            assert_eq!(messages.stats().dropped, 0);
        }
        Verb::Publish => {
            let pubsub = client(&work)?;
            let topic = pubsub_generic::core::TopicName::new(TOPIC)?;
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
        Verb::PublishAck => {
            let pubsub = client(&work)?;
            let topic = pubsub_generic::core::TopicName::new(TOPIC)?;
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
                waiting.push_back(publish.qos(QoS::AtLeastOnce).send());
            }
            for receipt in waiting {
                receipt.await?;
            }
        }
        Verb::PingPong => {
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

fn client(work: &Work) -> Result<PubSub> {
    let room = NonZeroUsize::new(100_000).ok_or("zero")?;
    let bytes = NonZeroUsize::new(64 << 20).ok_or("zero")?;
    let options = MqttOptions::new(&work.url)
        .queue(room, bytes)
        .configure_session(|session| {
            if work.verb == Verb::PublishAck
                && let Ok(window) = u16::try_from(work.window)
                && let Ok(window) = window.try_into()
            {
                session.max_in_flight = window;
            }
        });
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
    Ok(pubsub
        .subscribe(FILTER)
        .qos(qos)
        .queue(QueueLimits::default())
        .await?)
}
