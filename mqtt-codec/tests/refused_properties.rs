//! Properties that may not stand where they do, or say what they do not. Each case names its error.

mod common;

use common::*;
use mqtt_codec::{Malformed as M, ProtocolError as E, ProtocolVersion::*, *};

#[test]
fn properties_stand_only_where_they_may() {
    // The packets that each property may stand in, from the specification's table of properties.
    use PropertyScope as S;
    let values: [(&str, &[PropertyScope]); 27] = [
        ("01 01", &[S::Publish, S::Will]),
        ("02 00000001", &[S::Publish, S::Will]),
        ("03 0001 'a'", &[S::Publish, S::Will]),
        ("08 0001 'a'", &[S::Publish, S::Will]),
        ("09 0001 'a'", &[S::Publish, S::Will]),
        ("0B 01", &[S::Publish, S::Subscribe]),
        ("11 00000001", &[S::Connect, S::Connack, S::Disconnect]),
        ("12 0001 'a'", &[S::Connack]),
        ("13 0001", &[S::Connack]),
        ("15 0001 'a'", &[S::Connect, S::Connack, S::Auth]),
        ("16 0001 'a'", &[S::Connect, S::Connack, S::Auth]),
        ("17 01", &[S::Connect]),
        ("18 00000001", &[S::Will]),
        ("19 01", &[S::Connect]),
        ("1A 0001 'a'", &[S::Connack]),
        ("1C 0001 'a'", &[S::Connack, S::Disconnect]),
        (
            "1F 0001 'a'",
            &[
                S::Connack,
                S::Puback,
                S::Pubrec,
                S::Pubrel,
                S::Pubcomp,
                S::Suback,
                S::Unsuback,
                S::Disconnect,
                S::Auth,
            ],
        ),
        ("21 0001", &[S::Connect, S::Connack]),
        ("22 0001", &[S::Connect, S::Connack]),
        ("23 0001", &[S::Publish]),
        ("24 01", &[S::Connack]),
        ("25 01", &[S::Connack]),
        ("26 0001 'a' 0001 'b'", &S::ALL),
        ("27 00000001", &[S::Connect, S::Connack]),
        ("28 01", &[S::Connack]),
        ("29 01", &[S::Connack]),
        ("2A 01", &[S::Connack]),
    ];
    for (property, scopes) in values {
        let block = hex(property);
        let id = PropertyId::from_u8(block[0]).unwrap();
        // CONNECT does not allow the data without the method; put it first.
        let before = if id == PropertyId::AuthenticationData {
            hex("15 0001 'm'")
        } else {
            Vec::new()
        };
        for scope in PropertyScope::ALL {
            let once = [&before[..], &block[..]].concat();
            let twice = [&once[..], &block[..]].concat();
            assert_eq!(
                id.is_allowed_in(scope),
                scopes.contains(&scope),
                "{id} {scope:?}"
            );
            if !scopes.contains(&scope) {
                assert_eq!(
                    Properties::parse(scope, &block),
                    Err(M::MisplacedProperty(id).into()),
                    "{id} {scope:?}"
                );
                continue;
            }
            let parsed = Properties::parse(scope, &once).unwrap();
            let property = parsed.iter().last().unwrap();
            assert_eq!(property.id(), id);

            // Cut short.
            for len in before.len() + 1..once.len() {
                assert_eq!(
                    Properties::parse(scope, &once[..len]),
                    Err(M::Overrun.into()),
                    "{id}"
                );
            }

            let mut buf = PropertyBuf::new(scope);
            for property in parsed {
                buf.push(property).unwrap();
            }
            assert_eq!(buf.as_properties().as_block(), Some(&once[..]));

            let repeats = id == PropertyId::UserProperty
                || (id, scope) == (PropertyId::SubscriptionIdentifier, S::Publish);
            assert_eq!(id.may_repeat_in(scope), repeats);
            if repeats {
                assert!(Properties::parse(scope, &twice).is_ok());
                assert_eq!(buf.push(property), Ok(()));
            } else {
                assert_eq!(
                    Properties::parse(scope, &twice),
                    Err(E::DuplicateProperty(id).into()),
                    "{id} {scope:?}"
                );
                assert_eq!(buf.push(property), Err(EncodeError::DuplicateProperty(id)));
                assert_eq!(buf.as_properties().as_block(), Some(&once[..]));
            }
        }
    }
    for unknown in (0..=255).filter(|&id| PropertyId::from_u8(id).is_none()) {
        assert_eq!(
            Properties::parse(S::Connack, &[unknown, 0, 0, 0, 0]),
            Err(M::UnknownProperty.into())
        );
    }
    assert_eq!(PropertyId::ALL.len(), 27);
}

#[test]
fn property_values_out_of_range() {
    let parse = |scope, block: &str| Properties::parse(scope, &hex(block)).map(|_| ());
    let flags = [
        (
            PropertyScope::Publish,
            "01",
            PropertyId::PayloadFormatIndicator,
        ),
        (
            PropertyScope::Connect,
            "17",
            PropertyId::RequestProblemInformation,
        ),
        (
            PropertyScope::Connect,
            "19",
            PropertyId::RequestResponseInformation,
        ),
        (PropertyScope::Connack, "24", PropertyId::MaximumQoS),
        (PropertyScope::Connack, "25", PropertyId::RetainAvailable),
        (
            PropertyScope::Connack,
            "28",
            PropertyId::WildcardSubscriptionAvailable,
        ),
        (
            PropertyScope::Connack,
            "29",
            PropertyId::SubscriptionIdentifierAvailable,
        ),
        (
            PropertyScope::Connack,
            "2A",
            PropertyId::SharedSubscriptionAvailable,
        ),
    ];
    for (scope, property, id) in flags {
        for value in 0..=255 {
            let expected = if value < 2 {
                Ok(())
            } else {
                Err(E::NotABoolean(id).into())
            };
            assert_eq!(parse(scope, &format!("{property} {value:02X}")), expected);
        }
    }
    assert_eq!(
        parse(PropertyScope::Connect, "21 0000"),
        Err(E::ZeroValue(PropertyId::ReceiveMaximum).into())
    );
    assert_eq!(
        parse(PropertyScope::Connack, "27 00000000"),
        Err(E::ZeroValue(PropertyId::MaximumPacketSize).into())
    );
    assert_eq!(
        parse(PropertyScope::Publish, "23 0000"),
        Err(E::TopicAliasZero.into())
    );
    assert_eq!(
        parse(PropertyScope::Subscribe, "0B 00"),
        Err(E::SubscriptionIdentifierZero.into())
    );
    assert_eq!(
        parse(PropertyScope::Subscribe, "0B 80 00"),
        Err(M::VariableByteIntegerNotMinimal.into())
    );
    assert_eq!(
        parse(PropertyScope::Subscribe, "0B 80 80 80 80 01"),
        Err(M::VariableByteIntegerTooLong.into())
    );
    assert_eq!(parse(PropertyScope::Subscribe, "0B FF FF FF 7F"), Ok(()));
    // A block that ends behind the packet.
    refused(&[V5], "40 06 0001 00 03 1F 00", M::Overrun);
    // Text that ends behind its block, but inside the packet.
    refused(&[V5], "30 0B 0001 'a' 03 03 0004 'abcd'", M::Overrun);
}

//= test MQTT-3.15.1-1
#[test]
fn auth_without_a_method() {
    refused(&[V5], "F0 01 18", E::AuthenticationMethodMissing);
    refused(&[V5], "F0 02 19 00", E::AuthenticationMethodMissing);
    refused(
        &[V5],
        "F0 06 00 04 16 0001 'd'",
        E::AuthenticationMethodMissing,
    );
    refused(&[V5], "F1 00", M::FixedHeaderFlags);
}
