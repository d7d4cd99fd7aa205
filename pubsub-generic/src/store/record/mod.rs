//! The session's records as bytes.
//!
//! A key is a tag and what tells it from others of its kind; numbers are big-endian. There is one encoding for each record,
//! and decoding takes no other: whatever else is found was not written here.
//!
//! | record | key | value |
//! |---|---|---|
//! | the header | `00` | the [format](FORMAT), when the broker was last heard (8, or none in format 1), the client identifier |
//! | session | `01` | the assigned client identifier, after `01`; or `00` |
//! | message | `02`, its number (8) | flags, topic, expiry, properties, payload |
//! | progress | `03`, its number (8) | stage, packet identifier (2) |
//! | received | `04`, packet identifier (2) | fingerprint (8) |
//! | subscription | `05`, the filter | flags, granted QoS, identifier (4) |

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use mqtt_codec::{PacketId, PayloadFormat, QoS, RetainHandling, SubscriptionId};
use mqtt_session::{
    NoLocal, Publish, PublishId, PublishProperties, RecordKey, RecordValue, Retain,
    RetainAsPublished, SentProgress, Subscription,
};

use super::{Change, Record, StoreError, StoreErrorKind};

/// The version of all this.
const FORMAT: u8 = 2;
/// The version before: its header does not say when the broker was last heard.
const FORMAT_WITHOUT_TIME: u8 = 1;

const HEADER: u8 = 0;
const SESSION: u8 = 1;
const MESSAGE: u8 = 2;
const PROGRESS: u8 = 3;
const RECEIVED: u8 = 4;
const SUBSCRIPTION: u8 = 5;

/// The record that says whose session this is, and when the broker was last heard, by the wall clock: only this one goes
/// on while no process does. It goes into the first group.
pub(crate) fn header(client_id: &str, heard: Option<SystemTime>) -> Change {
    let mut value = BytesMut::with_capacity(9 + client_id.len());
    value.put_u8(FORMAT);
    value.put_u64(heard.map_or(0, unix_millis));
    value.put_slice(client_id.as_bytes());
    Change {
        key: Bytes::from_static(&[HEADER]),
        value: Some(value.freeze()),
    }
}

/// What a change of the session is to the store. `now` is the wall clock's, to which expiry is tied: only it goes on
/// while no process does.
pub(crate) fn encode(
    key: &RecordKey,
    value: Option<&RecordValue>,
    now: SystemTime,
) -> Result<Change, StoreError> {
    Ok(Change {
        key: encode_key(key)?,
        value: value.map(|value| encode_value(value, now)).transpose()?,
    })
}

fn encode_key(key: &RecordKey) -> Result<Bytes, StoreError> {
    let mut out = BytesMut::with_capacity(9);
    match key {
        RecordKey::Session => out.put_u8(SESSION),
        RecordKey::Message(id) => {
            out.put_u8(MESSAGE);
            out.put_u64(id.value());
        }
        RecordKey::Progress(id) => {
            out.put_u8(PROGRESS);
            out.put_u64(id.value());
        }
        RecordKey::Received(id) => {
            out.put_u8(RECEIVED);
            out.put_u16(id.value());
        }
        RecordKey::Subscription(filter) => {
            out.put_u8(SUBSCRIPTION);
            out.put_slice(filter.as_bytes());
        }
        // A session that has more to keep than we know how to would not be whole without it.
        _ => return Err(StoreErrorKind::Version.into()),
    }
    Ok(out.freeze())
}

fn encode_value(value: &RecordValue, now: SystemTime) -> Result<Bytes, StoreError> {
    let mut out = BytesMut::new();
    match value {
        RecordValue::Session { assigned_client_id } => match assigned_client_id {
            Some(id) => {
                out.put_u8(1);
                out.put_slice(id.as_bytes());
            }
            None => out.put_u8(0),
        },
        RecordValue::Message { publish } => encode_message(publish, now, &mut out),
        RecordValue::Progress { packet_id, sent } => {
            out.put_u8(match sent {
                SentProgress::Published => 0,
                SentProgress::Received => 1,
                _ => return Err(StoreErrorKind::Version.into()),
            });
            out.put_u16(packet_id.value());
        }
        RecordValue::Received { fingerprint } => out.put_u64(*fingerprint),
        RecordValue::Subscription {
            subscription,
            id,
            granted,
        } => {
            let no_local = subscription.no_local == NoLocal::On;
            let keep = subscription.retain_as_published == RetainAsPublished::Keep;
            let handling = subscription.retain_handling as u8;
            out.put_u8(
                u8::from(subscription.qos)
                    | flag(no_local, subscription_flags::NO_LOCAL)
                    | flag(keep, subscription_flags::AS_PUBLISHED)
                    | handling << subscription_flags::HANDLING_SHIFT,
            );
            out.put_u8(u8::from(*granted));
            out.put_u32(id.map_or(0, u32::from));
        }
        _ => return Err(StoreErrorKind::Version.into()),
    }
    Ok(out.freeze())
}

/// Laid out as the options of a SUBSCRIBE.
mod subscription_flags {
    pub(super) const QOS: u8 = 0b11;
    pub(super) const NO_LOCAL: u8 = 1 << 2;
    pub(super) const AS_PUBLISHED: u8 = 1 << 3;
    pub(super) const HANDLING_SHIFT: u8 = 4;
    pub(super) const HANDLING: u8 = 0b11 << HANDLING_SHIFT;
}

mod message_flags {
    pub(super) const QOS: u8 = 0b11;
    pub(super) const RETAIN: u8 = 1 << 2;
    pub(super) const EXPIRY: u8 = 1 << 3;
    pub(super) const PROPERTIES: u8 = 1 << 4;
    pub(super) const ALL: u8 = QOS | RETAIN | EXPIRY | PROPERTIES;
}

mod property_flags {
    pub(super) const FORMAT: u8 = 1;
    pub(super) const TEXT: u8 = 1 << 1;
    pub(super) const CONTENT_TYPE: u8 = 1 << 2;
    pub(super) const RESPONSE_TOPIC: u8 = 1 << 3;
    pub(super) const CORRELATION: u8 = 1 << 4;
    pub(super) const ALL: u8 = FORMAT | TEXT | CONTENT_TYPE | RESPONSE_TOPIC | CORRELATION;
}

fn encode_message(publish: &Publish, now: SystemTime, out: &mut BytesMut) {
    out.reserve(64 + publish.topic.len() + publish.payload.len());
    out.put_u8(
        u8::from(publish.qos)
            | flag(publish.retain.is_yes(), message_flags::RETAIN)
            | flag(publish.expiry.is_some(), message_flags::EXPIRY)
            | flag(publish.properties.is_some(), message_flags::PROPERTIES),
    );
    put_field(publish.topic.as_bytes(), out);
    if let Some(left) = publish.expiry {
        let left = millis(left);
        out.put_u64(left);
        out.put_u64(unix_millis(now).saturating_add(left));
    }
    if let Some(properties) = &publish.properties {
        encode_properties(properties, out);
    }
    out.put_slice(&publish.payload);
}

fn encode_properties(properties: &PublishProperties, out: &mut BytesMut) {
    use property_flags as flags;

    let is_text = properties.payload_format == Some(PayloadFormat::Utf8);
    out.put_u8(
        flag(properties.payload_format.is_some(), flags::FORMAT)
            | flag(is_text, flags::TEXT)
            | flag(properties.content_type.is_some(), flags::CONTENT_TYPE)
            | flag(properties.response_topic.is_some(), flags::RESPONSE_TOPIC)
            | flag(properties.correlation_data.is_some(), flags::CORRELATION),
    );
    let texts = [&properties.content_type, &properties.response_topic];
    for text in texts.into_iter().flatten() {
        put_field(text.as_bytes(), out);
    }
    if let Some(data) = &properties.correlation_data {
        put_field(data, out);
    }
    // More would not fit into the largest packet.
    out.put_u32(u32::try_from(properties.user_properties.len()).unwrap_or(u32::MAX));
    for (name, value) in &properties.user_properties {
        put_field(name.as_bytes(), out);
        put_field(value.as_bytes(), out);
    }
}

/// What a store had.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Whether it had a header: without one the first group has to bring it.
    pub(crate) has_header: bool,
    /// When the broker was last heard, where that is known.
    pub(crate) heard: Option<SystemTime>,
    pub(crate) records: Vec<(RecordKey, RecordValue)>,
}

/// The records of this client's session.
pub(crate) fn decode_all(
    records: Vec<Record>,
    client_id: &str,
    now: SystemTime,
) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    let (headers, records): (Vec<_>, Vec<_>) = records
        .into_iter()
        .partition(|record| record.key[..] == [HEADER]);
    match &headers[..] {
        [] if records.is_empty() => return Ok(loaded),
        // Each group is stored as a whole, and the first one has the header.
        [] => return Err(StoreErrorKind::Foreign.into()),
        [header] => {
            let mut header = Reader(header.value.clone());
            let millis = match header.u8().ok_or(StoreErrorKind::Corrupt)? {
                FORMAT => header.u64().ok_or(StoreErrorKind::Corrupt)?,
                FORMAT_WITHOUT_TIME => 0,
                _ => return Err(StoreErrorKind::Version.into()),
            };
            if header.rest() != client_id.as_bytes() {
                return Err(StoreErrorKind::OtherClient.into());
            }
            loaded.heard = (millis > 0)
                .then(|| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)))
                .flatten();
        }
        _ => return Err(StoreErrorKind::Corrupt.into()),
    }
    loaded.has_header = true;
    loaded.records.reserve(records.len());
    for record in records {
        let decoded = decode(&record, now).ok_or(StoreErrorKind::Corrupt)?;
        loaded.records.push(decoded);
    }
    Ok(loaded)
}

/// `None` for what [`encode`] does not write.
fn decode(record: &Record, now: SystemTime) -> Option<(RecordKey, RecordValue)> {
    let mut key = Reader(record.key.clone());
    let mut value = Reader(record.value.clone());
    let decoded = match key.u8()? {
        SESSION => {
            let assigned_client_id = match value.u8()? {
                0 => None,
                1 => Some(text(value.rest())?),
                _ => return None,
            };
            (
                RecordKey::Session,
                RecordValue::Session { assigned_client_id },
            )
        }
        MESSAGE => {
            let id = PublishId::from_value(key.u64()?);
            let publish = decode_message(&mut value, now)?;
            (RecordKey::Message(id), RecordValue::Message { publish })
        }
        PROGRESS => {
            let id = PublishId::from_value(key.u64()?);
            let sent = match value.u8()? {
                0 => SentProgress::Published,
                1 => SentProgress::Received,
                _ => return None,
            };
            let packet_id = PacketId::new(value.u16()?)?;
            (
                RecordKey::Progress(id),
                RecordValue::Progress { packet_id, sent },
            )
        }
        RECEIVED => {
            let id = PacketId::new(key.u16()?)?;
            let fingerprint = value.u64()?;
            (
                RecordKey::Received(id),
                RecordValue::Received { fingerprint },
            )
        }
        SUBSCRIPTION => {
            let filter: Arc<str> = text(key.rest())?.into();
            let value = decode_subscription(&filter, &mut value)?;
            (RecordKey::Subscription(filter), value)
        }
        _ => return None,
    };
    (key.0.is_empty() && value.0.is_empty()).then_some(decoded)
}

fn decode_subscription(filter: &Arc<str>, value: &mut Reader) -> Option<RecordValue> {
    use subscription_flags as flags;

    let bits = value.u8()?;
    let known = flags::QOS | flags::NO_LOCAL | flags::AS_PUBLISHED | flags::HANDLING;
    if bits & !known != 0 {
        return None;
    }
    let qos = QoS::from_u8(bits & flags::QOS)?;
    let mut subscription = Subscription::new(Arc::clone(filter), qos);
    if bits & flags::NO_LOCAL != 0 {
        subscription.no_local = NoLocal::On;
    }
    if bits & flags::AS_PUBLISHED != 0 {
        subscription.retain_as_published = RetainAsPublished::Keep;
    }
    subscription.retain_handling = match (bits & flags::HANDLING) >> flags::HANDLING_SHIFT {
        0 => RetainHandling::SendAtSubscribe,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return None,
    };
    let granted = QoS::from_u8(value.u8()?)?;
    let id = match value.u32()? {
        0 => None,
        id => Some(SubscriptionId::new(id)?),
    };
    Some(RecordValue::Subscription {
        subscription,
        id,
        granted,
    })
}

fn decode_message(value: &mut Reader, now: SystemTime) -> Option<Publish> {
    use message_flags as flags;

    let bits = value.u8()?;
    if bits & !flags::ALL != 0 {
        return None;
    }
    let qos = QoS::from_u8(bits & flags::QOS)?;
    let topic = text(value.field()?)?;
    let expiry = match bits & flags::EXPIRY {
        0 => None,
        _ => {
            let (left, deadline) = (value.u64()?, value.u64()?);
            // A clock that was set back must not give it more time than it had.
            let left = deadline.saturating_sub(unix_millis(now)).min(left);
            Some(Duration::from_millis(left))
        }
    };
    let properties = match bits & flags::PROPERTIES {
        0 => None,
        _ => Some(Box::new(decode_properties(value)?)),
    };
    let mut publish = Publish::new(topic, value.rest(), qos);
    if bits & flags::RETAIN != 0 {
        publish.retain = Retain::Yes;
    }
    publish.expiry = expiry;
    publish.properties = properties;
    Some(publish)
}

fn decode_properties(value: &mut Reader) -> Option<PublishProperties> {
    use property_flags as flags;

    let bits = value.u8()?;
    if bits & !flags::ALL != 0 {
        return None;
    }
    let mut properties = PublishProperties::default();
    properties.payload_format = match (bits & flags::FORMAT, bits & flags::TEXT) {
        (0, 0) => None,
        (0, _) => return None,
        (_, 0) => Some(PayloadFormat::Unspecified),
        _ => Some(PayloadFormat::Utf8),
    };
    if bits & flags::CONTENT_TYPE != 0 {
        properties.content_type = Some(text(value.field()?)?);
    }
    if bits & flags::RESPONSE_TOPIC != 0 {
        properties.response_topic = Some(text(value.field()?)?);
    }
    if bits & flags::CORRELATION != 0 {
        properties.correlation_data = Some(value.field()?);
    }
    // Not reserved: the number is only a claim.
    for _ in 0..value.u32()? {
        let pair = (text(value.field()?)?, text(value.field()?)?);
        properties.user_properties.push(pair);
    }
    Some(properties)
}

/// Takes from the front, or nothing.
struct Reader(Bytes);

impl Reader {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = *self.0.first_chunk()?;
        self.0 = self.0.slice(N..);
        Some(array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn field(&mut self) -> Option<Bytes> {
        let len = usize::try_from(self.u32()?).ok()?;
        (len <= self.0.len()).then(|| self.0.split_to(len))
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
}

fn put_field(bytes: &[u8], out: &mut BytesMut) {
    // The session takes no field of more than 65,535 bytes.
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

fn text(bytes: Bytes) -> Option<String> {
    String::from_utf8(bytes.into()).ok()
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// Never less than there is.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn unix_millis(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests;
