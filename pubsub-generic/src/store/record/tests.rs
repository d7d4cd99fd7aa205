use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn message() -> Publish {
    let mut publish = Publish::new("a/b", "payload", QoS::ExactlyOnce);
    publish.retain = Retain::Yes;
    publish.expiry = Some(Duration::from_secs(100));
    let mut properties = PublishProperties::default();
    properties.payload_format = Some(PayloadFormat::Utf8);
    properties.content_type = Some("text/plain".to_owned());
    properties.response_topic = Some("r".to_owned());
    properties.correlation_data = Some(Bytes::from_static(b"\0\xff"));
    properties.user_properties = vec![("n".to_owned(), String::new())];
    publish.properties = Some(Box::new(properties));
    publish
}

/// One of each kind, and of each kind with all there can be in it.
fn samples() -> Vec<(RecordKey, RecordValue)> {
    let mut subscription = Subscription::new("$share/g/a/+/#", QoS::AtLeastOnce);
    subscription.no_local = NoLocal::On;
    subscription.retain_as_published = RetainAsPublished::Keep;
    subscription.retain_handling = RetainHandling::DoNotSend;
    let assigned_client_id = Some("id".to_owned());
    let number = PublishId::from_value;
    vec![
        (
            RecordKey::Session,
            RecordValue::Session {
                assigned_client_id: None,
            },
        ),
        (
            RecordKey::Session,
            RecordValue::Session { assigned_client_id },
        ),
        (
            RecordKey::Message(number(7)),
            RecordValue::Message { publish: message() },
        ),
        (
            RecordKey::Message(number(u64::MAX)),
            RecordValue::Message {
                publish: Publish::new("t", "", QoS::AtLeastOnce),
            },
        ),
        (
            RecordKey::Progress(number(7)),
            RecordValue::Progress {
                packet_id: id(65_535),
                sent: SentProgress::Received,
            },
        ),
        (
            RecordKey::Received(id(1)),
            RecordValue::Received {
                fingerprint: u64::MAX,
            },
        ),
        (
            RecordKey::Subscription(Arc::clone(&subscription.filter)),
            RecordValue::Subscription {
                subscription,
                id: SubscriptionId::new(268_435_455),
                granted: QoS::AtMostOnce,
            },
        ),
    ]
}

fn stored(key: &RecordKey, value: &RecordValue, now: SystemTime) -> Record {
    let change = encode(key, Some(value), now).unwrap();
    Record {
        key: change.key,
        value: change.value.unwrap(),
    }
}

#[test]
fn every_record_comes_back_as_it_was() {
    for (key, value) in samples() {
        let record = stored(&key, &value, NOW);
        assert_eq!(decode(&record, NOW), Some((key, value)));
    }
}

#[test]
fn the_bytes_are_these() {
    let (key, value) = &samples()[2];
    let record = stored(key, value, NOW + Duration::from_secs(1));
    assert_eq!(&record.key[..], b"\x02\0\0\0\0\0\0\0\x07");
    let mut expected = b"\x1e\0\0\0\x03a/b".to_vec();
    expected.extend(100_000_u64.to_be_bytes());
    expected.extend(101_000_u64.to_be_bytes());
    expected.extend(b"\x1f\0\0\0\x0atext/plain\0\0\0\x01r\0\0\0\x02\0\xff");
    expected.extend(b"\0\0\0\x01\0\0\0\x01n\0\0\0\0payload");
    assert_eq!(&record.value[..], expected);
}

#[test]
fn a_record_cut_short_or_with_one_byte_more_is_none() {
    for (key, value) in samples() {
        let record = stored(&key, &value, NOW);
        let is_open_ended = matches!(key, RecordKey::Message(_))
            || matches!(
                &value,
                RecordValue::Session {
                    assigned_client_id: Some(_)
                }
            );
        for len in 0..record.value.len() {
            let mut cut = record.clone();
            cut.value.truncate(len);
            let cut = decode(&cut, NOW);
            assert!(cut.is_none() || is_open_ended, "{key:?} of {len} bytes");
            assert_ne!(cut, Some((key.clone(), value.clone())));
        }
        let mut longer = record.clone();
        longer.value = [&record.value[..], b"x"].concat().into();
        assert!(decode(&longer, NOW).is_none() || is_open_ended, "{key:?}");
        if !matches!(key, RecordKey::Subscription(_)) {
            longer = record.clone();
            longer.key = [&record.key[..], b"x"].concat().into();
            assert!(decode(&longer, NOW).is_none(), "{key:?}");
        }
    }
}

#[test]
fn expiry_goes_on_while_nobody_runs_and_never_grows() {
    let at = |secs| NOW + Duration::from_secs(secs);
    let value = RecordValue::Message { publish: message() };
    let record = stored(
        &RecordKey::Message(PublishId::from_value(1)),
        &value,
        at(1000),
    );
    for (now, left) in [(1000, 100), (1040, 60), (2000, 0), (5, 100)] {
        let Some((_, RecordValue::Message { publish })) = decode(&record, at(now)) else {
            panic!("it is a message");
        };
        assert_eq!(publish.expiry, Some(Duration::from_secs(left)), "at {now}");
    }
}

#[test]
fn whose_session_it_is_stands_first() {
    let record = |change: Change| Record {
        key: change.key,
        value: change.value.unwrap(),
    };
    let load = |records: Vec<Record>| {
        let loaded = decode_all(records, "me", NOW);
        loaded
            .map(|loaded| loaded.has_header)
            .map_err(|error| error.kind())
    };
    let (key, value) = &samples()[0];
    let session = stored(key, value, NOW);
    let heard = NOW + Duration::from_millis(0x0102_0304_0506);
    let header = record(header("me", Some(heard)));
    assert_eq!(&header.value[..], b"\x02\0\0\x01\x02\x03\x04\x05\x06me");
    assert_eq!(load(vec![]), Ok(false));
    assert_eq!(load(vec![session.clone(), header.clone()]), Ok(true));
    assert_eq!(load(vec![session]), Err(StoreErrorKind::Foreign));
    assert_eq!(
        load(vec![record(super::header("you", None))]),
        Err(StoreErrorKind::OtherClient)
    );
    for (value, kind) in [
        (&b"\x03\0\0\0\0\0\0\0\0me"[..], StoreErrorKind::Version),
        (b"\x02\0\0\0\0\0\0\0", StoreErrorKind::Corrupt),
        (b"", StoreErrorKind::Corrupt),
    ] {
        let mut other = header.clone();
        other.value = value.into();
        assert_eq!(load(vec![other]), Err(kind), "{value:02x?}");
    }
}

#[test]
fn the_header_says_when_the_broker_was_last_heard_if_that_is_known() {
    let heard = |value: &[u8]| {
        let key = Bytes::from_static(&[HEADER]);
        let value = Bytes::copy_from_slice(value);
        decode_all(vec![Record { key, value }], "me", NOW)
            .unwrap()
            .heard
    };
    let at = NOW + Duration::from_millis(1500);
    for (time, expected) in [(Some(at), Some(at)), (None, None)] {
        assert_eq!(heard(&header("me", time).value.unwrap()), expected);
    }
    assert_eq!(heard(b"\x01me"), None, "as the first format had it");
    // No time that a clock can show, and no panic.
    let _ = heard(b"\x02\xff\xff\xff\xff\xff\xff\xff\xffme");
}
