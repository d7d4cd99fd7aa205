//! What a session store may have: anything.

use bytes::{Buf as _, Bytes};
use pubsub_core::{BoxFuture, QoS};
use pubsub_generic::{
    Attempt, Change, Connect, ConnectError, ConnectErrorKind, MemorySessionStore, MqttOptions,
    MqttProvider, Opened, OptionsError, SessionMode, SessionStore as _, StoreErrorKind,
};

/// Makes a provider of hostile records: it is refused with a reason, or each message in them is restored once.
///
/// The input is a row of records: a byte that says how long the key is, two for the value, the key, the value.
///
/// # Panics
///
/// If that does not hold.
pub fn session_store(data: &[u8]) {
    let store = MemorySessionStore::new();
    let mut data = Bytes::copy_from_slice(data);
    while data.len() >= 3 {
        let (key, value) = (usize::from(data.get_u8()), usize::from(data.get_u16()));
        let key = data.split_to(key.min(data.len()));
        let value = Some(data.split_to(value.min(data.len())));
        store.write(&[Change { key, value }]).expect("memory");
    }
    let records = store.load().expect("memory");
    let messages = records
        .iter()
        .filter(|record| record.key.first() == Some(&2))
        .count();
    let options = MqttOptions::without_url()
        .client_id("me")
        .session(SessionMode::Persistent {
            expiry: std::time::Duration::MAX,
        })
        .store(store);
    match MqttProvider::with_connect(options, Nowhere) {
        Ok(provider) => {
            let restored = provider.take_restored();
            assert_eq!(restored.len(), messages);
            assert!(
                restored
                    .iter()
                    .all(|publish| publish.qos != QoS::AtMostOnce)
            );
            assert_eq!(provider.stats().publishes_pending, messages);
        }
        Err(OptionsError::Store(error)) => {
            let kind = error.kind();
            assert!(
                matches!(
                    kind,
                    StoreErrorKind::Foreign
                        | StoreErrorKind::Version
                        | StoreErrorKind::OtherClient
                        | StoreErrorKind::Corrupt
                ),
                "{error:?}"
            );
        }
        Err(error) => panic!("{error:?}"),
    }
}

struct Nowhere;

impl Connect for Nowhere {
    fn connect<'a>(&'a self, _: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async { Err(ConnectError::new(ConnectErrorKind::Dial)) })
    }
}
