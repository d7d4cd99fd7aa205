//! The endpoint of an account: from what people paste to what is signed, and the region that its name gives away.

use std::error::Error as StdError;
use std::fmt;

use sigv4_presign::Credentials;
use ws_transport::{Endpoint as WsEndpoint, Security};

use crate::partition::{is_region, suffixes};

/// The path of the service's MQTT endpoint.
const PATH: &str = "/mqtt";

/// Whether an endpoint may be a `ws://` one, which nothing encrypts. The service has none; a local gateway may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PlainWs {
    /// It may not.
    #[default]
    Refuse,
    /// It may if it leads to this machine: a loopback address or `localhost`. For tests.
    LoopbackForTesting,
}

/// An endpoint that can be signed for: where to connect, and the region of the signature.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// Scheme, authority, path and whatever query came with it; no signature.
    url: String,
    region: String,
    shown: WsEndpoint,
}

impl Endpoint {
    /// Understands a host, a host with a port, or a `wss://` URL. `region` wins where the host names none, and has to be
    /// the same where it does.
    pub(crate) fn new(
        given: &str,
        region: Option<&str>,
        plain: PlainWs,
    ) -> Result<Self, EndpointError> {
        let (url, shown) = understand(given, plain)?;
        let region = choose_region(shown.host().as_str(), region)?;
        // Whatever would keep it from being signed comes to light now and not with the first connection.
        let stand_in = Credentials::new("AKIDEXAMPLE", "secret");
        sigv4_presign::presign_iot(&url, &region, &stand_in, std::time::UNIX_EPOCH)
            .map_err(EndpointError::Unsignable)?;
        Ok(Self { url, region, shown })
    }

    /// What is signed.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    #[cfg(feature = "https-publish")]
    pub(crate) fn target(&self) -> &ws_transport::Target {
        self.shown.target()
    }

    pub(crate) fn host(&self) -> &str {
        self.shown.host().as_str()
    }
}

impl fmt::Debug for Endpoint {
    /// Without the query: a custom domain's may hold anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.shown.to_string())
            .field("region", &self.region)
            .finish()
    }
}

/// An endpoint that is connected to without a signature, and so without need for a region.
pub(crate) struct UnsignedEndpoint {
    /// Scheme, authority, path and whatever query came with it.
    pub(crate) url: String,
    pub(crate) host: String,
    /// As far as it is known.
    pub(crate) region: Option<String>,
}

impl UnsignedEndpoint {
    /// As [`Endpoint::new`], but that no region is as good as any.
    pub(crate) fn new(
        given: &str,
        region: Option<&str>,
        plain: PlainWs,
    ) -> Result<Self, EndpointError> {
        let (url, shown) = understand(given, plain)?;
        let host = shown.host().as_str().to_owned();
        let region = match choose_region(&host, region) {
            Ok(region) => Some(region),
            Err(EndpointError::UnknownRegion) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { url, host, region })
    }
}

/// The whole URL, and the same as it can be shown.
fn understand(given: &str, plain: PlainWs) -> Result<(String, WsEndpoint), EndpointError> {
    let url = complete(given)?;
    let shown: WsEndpoint = url.parse().map_err(|error| match error {
        ws_transport::EndpointError::Scheme => EndpointError::Scheme,
        error => EndpointError::Malformed(Box::new(error)),
    })?;
    if shown.target().security() == Security::Plain
        && !(plain == PlainWs::LoopbackForTesting && shown.host().is_loopback())
    {
        return Err(EndpointError::Plain);
    }
    if is_vpc_endpoint(shown.host().as_str()) {
        return Err(EndpointError::VpcEndpointName);
    }
    Ok((url, shown))
}

/// Whether a host is an interface endpoint's own name, regional or of one zone.
fn is_vpc_endpoint(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    suffixes().any(|suffix| {
        host.strip_suffix(suffix)
            .is_some_and(|host| host.ends_with(".vpce"))
    })
}

/// Adds the scheme and the path where they are missing.
fn complete(given: &str) -> Result<String, EndpointError> {
    let given = given.trim();
    if given.is_empty() {
        return Err(EndpointError::Empty);
    }
    let (scheme, rest) = given.split_once("://").unwrap_or(("wss", given));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let path = match rest {
        "" | "/" => PATH.to_owned(),
        // A query without a path.
        _ if !rest.starts_with('/') => format!("{PATH}{rest}"),
        _ => rest.to_owned(),
    };
    Ok(format!("{scheme}://{authority}{path}"))
}

fn choose_region(host: &str, given: Option<&str>) -> Result<String, EndpointError> {
    let named = region_of_host(host);
    if let Some(given) = given
        && !is_region(given)
    {
        return Err(EndpointError::InvalidRegion);
    }
    match (named, given) {
        (Some(named), Some(given)) if named != given => Err(EndpointError::RegionMismatch {
            named,
            given: given.to_owned(),
        }),
        (Some(region), _) => Ok(region),
        (None, Some(region)) => Ok(region.to_owned()),
        (None, None) => Err(EndpointError::UnknownRegion),
    }
}

/// The region that a host of the service's names: the label after `iot` or `iot-fips`, just before the suffix of a
/// partition. `None` for custom domains, for interface endpoints of a VPC, and for hosts that are not this service's.
///
/// ```
/// use pubsub_aws_iot::region_of_host;
///
/// assert_eq!(region_of_host("a1b2c3example-ats.iot.eu-west-1.amazonaws.com").as_deref(), Some("eu-west-1"));
/// assert_eq!(region_of_host("a1b2c3example.ats.iot.cn-north-1.amazonaws.com.cn").as_deref(), Some("cn-north-1"));
/// assert_eq!(region_of_host("data.iot-fips.us-gov-west-1.amazonaws.com").as_deref(), Some("us-gov-west-1"));
/// assert_eq!(region_of_host("iot.example.com"), None);
/// ```
#[must_use]
pub fn region_of_host(host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    suffixes().find_map(|suffix| {
        let mut labels = host.strip_suffix(suffix)?.rsplit('.');
        let region = labels.next()?;
        let service = labels.next()?;
        (matches!(service, "iot" | "iot-fips") && is_region(region)).then(|| region.to_owned())
    })
}

/// Why an endpoint or its region cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum EndpointError {
    /// There is none.
    Empty,
    /// It has a scheme other than `wss`.
    Scheme,
    /// It is not a host, perhaps with a port, or a URL; the source says why.
    Malformed(Box<dyn StdError + Send + Sync>),
    /// It is a `ws://` URL, and those are only for tests on this machine; see
    /// [`plain_ws`](crate::AwsIotOptions::plain_ws).
    Plain,
    /// It is the name of an interface endpoint in a VPC (`vpce-….vpce.amazonaws.com`). The service goes by the name that a client
    /// connects to, and knows its accounts' own and their custom domains alone. So give that one, and let the VPC's private
    /// DNS, or a [`dialer`](crate::AwsIotOptions::dialer), lead it to the interface endpoint.
    VpcEndpointName,
    /// Its host does not say which region it is in, as no custom domain does, and no region was given.
    UnknownRegion,
    /// The region that was given is none: regions are in lower case, as `eu-west-1`.
    InvalidRegion,
    /// The region that was given is not the one that the host names. One of them is wrong, and so would be every
    /// signature.
    RegionMismatch {
        /// What the host names.
        named: String,
        /// What was given.
        given: String,
    },
    /// It cannot be signed.
    Unsignable(sigv4_presign::Error),
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the endpoint is empty"),
            Self::Scheme => f.write_str("the endpoint's scheme is not wss"),
            Self::Malformed(_) => f.write_str("the endpoint is neither a host nor a wss:// URL"),
            Self::Plain => f.write_str(
                "the endpoint is not encrypted; ws:// is only for tests on this machine that say so",
            ),
            Self::VpcEndpointName => f.write_str(
                "the endpoint is the name of a VPC's interface endpoint; the account's own name is needed, and private DNS that \
                 leads it there",
            ),
            Self::UnknownRegion => {
                f.write_str("the endpoint's host does not name its region, so it has to be given")
            }
            Self::InvalidRegion => {
                f.write_str("the region is not one: lower case, as in `eu-west-1`")
            }
            Self::RegionMismatch { named, given } => {
                write!(f, "the region given is {given}, but the endpoint is in {named}")
            }
            Self::Unsignable(_) => f.write_str("the endpoint cannot be signed"),
        }
    }
}

impl StdError for EndpointError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Malformed(source) => Some(source.as_ref()),
            Self::Unsignable(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_in_the_host_in_every_partition() {
        for (host, region) in [
            ("a1-ats.iot.us-east-1.amazonaws.com", Some("us-east-1")),
            (
                "a1.iot.ap-southeast-2.amazonaws.com",
                Some("ap-southeast-2"),
            ),
            ("A1-ATS.IOT.EU-WEST-1.AMAZONAWS.COM", Some("eu-west-1")),
            ("a1-ats.iot.eu-west-1.amazonaws.com.", Some("eu-west-1")),
            ("a1.ats.iot.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            (
                "a1-ats.iot.cn-northwest-1.amazonaws.com.cn",
                Some("cn-northwest-1"),
            ),
            (
                "data-ats.iot.cn-north-1.api.amazonwebservices.com.cn",
                Some("cn-north-1"),
            ),
            (
                "data.iot-fips.us-gov-east-1.amazonaws.com",
                Some("us-gov-east-1"),
            ),
            ("data.iot-fips.us-gov-east-1.api.aws", Some("us-gov-east-1")),
            ("data-ats.iot.eu-central-1.api.aws", Some("eu-central-1")),
            (
                "a1-ats.iot.eusc-de-east-1.amazonaws.eu",
                Some("eusc-de-east-1"),
            ),
            ("a1-ats.iot.us-iso-east-1.c2s.ic.gov", Some("us-iso-east-1")),
            (
                "a1-ats.iot.us-isob-east-1.sc2s.sgov.gov",
                Some("us-isob-east-1"),
            ),
            ("iot.example.com", None),
            ("a1.iot.eu-west-1.example.com", None),
            (
                "mqtt.example-ats.iot.eu-west-1.amazonaws.com.evil.example",
                None,
            ),
            ("abc.execute-api.eu-west-1.amazonaws.com", None),
            ("vpce-1-2.data.iot.eu-west-1.vpce.amazonaws.com", None),
            ("iot.eu_west.amazonaws.com", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(region_of_host(host).as_deref(), region, "{host}");
        }
    }

    #[test]
    fn what_people_paste_becomes_what_is_signed() {
        const HOST: &str = "a1-ats.iot.eu-west-1.amazonaws.com";
        for (given, url) in [
            (HOST.to_owned(), format!("wss://{HOST}/mqtt")),
            (format!(" {HOST}\n"), format!("wss://{HOST}/mqtt")),
            (format!("{HOST}:443"), format!("wss://{HOST}:443/mqtt")),
            (format!("wss://{HOST}"), format!("wss://{HOST}/mqtt")),
            (format!("wss://{HOST}/"), format!("wss://{HOST}/mqtt")),
            (format!("wss://{HOST}/mqtt"), format!("wss://{HOST}/mqtt")),
            (
                format!("wss://{HOST}?a=b"),
                format!("wss://{HOST}/mqtt?a=b"),
            ),
            (
                format!("wss://{HOST}/other?a=b"),
                format!("wss://{HOST}/other?a=b"),
            ),
        ] {
            let endpoint = Endpoint::new(&given, None, PlainWs::Refuse).unwrap();
            assert_eq!(endpoint.url(), url, "{given}");
            assert_eq!(endpoint.region(), "eu-west-1");
            assert_eq!(endpoint.host(), HOST);
        }
        let custom = Endpoint::new("iot.example.com", Some("sa-east-1"), PlainWs::Refuse).unwrap();
        assert_eq!(custom.region(), "sa-east-1");
    }

    #[test]
    fn what_cannot_work_is_refused_by_the_rule_it_breaks() {
        const HOST: &str = "a1-ats.iot.eu-west-1.amazonaws.com";
        let refused = |given: &str, region, plain| Endpoint::new(given, region, plain).unwrap_err();
        use EndpointError as E;
        use PlainWs::{LoopbackForTesting as Loopback, Refuse};
        assert!(matches!(refused("  ", None, Refuse), E::Empty));
        for scheme in ["https", "mqtts", "http"] {
            let given = format!("{scheme}://{HOST}");
            assert!(
                matches!(refused(&given, None, Refuse), E::Scheme),
                "{given}"
            );
        }
        for given in [
            "a b",
            "wss://user:pass@h/",
            "wss://h/#f",
            "h:99999",
            "wss://",
        ] {
            let error = refused(given, Some("eu-west-1"), Refuse);
            assert!(matches!(error, E::Malformed(_)), "{given}: {error:?}");
        }
        let local = "ws://127.0.0.1:1/mqtt";
        assert!(matches!(
            refused(local, Some("eu-west-1"), Refuse),
            E::Plain
        ));
        for vpce in [
            "vpce-0a1b-2c3d.data.iot.eu-west-1.vpce.amazonaws.com",
            "VPCE-0a1b-2c3d-eu-west-1a.data.iot.eu-west-1.VPCE.amazonaws.com.:443",
            "wss://vpce-0a1b-2c3d.data.iot.cn-north-1.vpce.amazonaws.com.cn/mqtt",
        ] {
            for region in [None, Some("eu-west-1")] {
                let error = refused(vpce, region, Refuse);
                assert!(matches!(error, E::VpcEndpointName), "{vpce}: {error:?}");
            }
            let unsigned = UnsignedEndpoint::new(vpce, None, Refuse);
            assert!(matches!(unsigned, Err(E::VpcEndpointName)), "{vpce}");
        }
        // A custom domain may have any label.
        assert!(Endpoint::new("a.vpce.example.com", Some("eu-west-1"), Refuse).is_ok());
        let remote = format!("ws://{HOST}");
        assert!(matches!(refused(&remote, None, Loopback), E::Plain));
        assert!(Endpoint::new(local, Some("eu-west-1"), Loopback).is_ok());
        assert!(matches!(
            refused("iot.example.com", None, Refuse),
            E::UnknownRegion
        ));
        for region in ["EU-WEST-1", "eu west", "", "euwest1", "eu-west-1/", "-"] {
            let error = refused(HOST, Some(region), Refuse);
            assert!(matches!(error, E::InvalidRegion), "{region}");
        }
        let error = refused(HOST, Some("eu-west-2"), Refuse);
        assert_eq!(
            error.to_string(),
            "the region given is eu-west-2, but the endpoint is in eu-west-1"
        );
        let signed = format!("wss://{HOST}/mqtt?X-Amz-Signature=0");
        assert!(matches!(refused(&signed, None, Refuse), E::Unsignable(_)));
    }

    #[test]
    fn a_query_is_not_shown() {
        let endpoint = Endpoint::new(
            "wss://iot.example.com/mqtt?key=marker",
            Some("eu-west-1"),
            PlainWs::Refuse,
        );
        let shown = format!("{:?}", endpoint.unwrap());
        assert!(!shown.contains("marker") && shown.contains("iot.example.com"));
    }
}
