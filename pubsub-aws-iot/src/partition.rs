//! AWS's partitions: which regions they have, and what the names of their hosts end in.

/// What the names of a partition's hosts end in.
struct Partition {
    /// How the names of its regions begin.
    #[cfg_attr(
        not(any(feature = "cognito", feature = "control-plane")),
        expect(dead_code, reason = "regions are only looked up for these")
    )]
    regions: &'static str,
    suffix: &'static str,
    dual_stack: &'static str,
}

/// All partitions, the one that takes every other region last. As in botocore's `partitions.json`.
const PARTITIONS: [Partition; 7] = [
    Partition {
        regions: "cn-",
        suffix: ".amazonaws.com.cn",
        dual_stack: ".api.amazonwebservices.com.cn",
    },
    Partition {
        regions: "eusc-",
        suffix: ".amazonaws.eu",
        dual_stack: ".api.amazonwebservices.eu",
    },
    Partition {
        regions: "us-iso-",
        suffix: ".c2s.ic.gov",
        dual_stack: ".api.aws.ic.gov",
    },
    Partition {
        regions: "us-isob-",
        suffix: ".sc2s.sgov.gov",
        dual_stack: ".api.aws.scloud",
    },
    Partition {
        regions: "eu-isoe-",
        suffix: ".cloud.adc-e.uk",
        dual_stack: ".api.cloud-aws.adc-e.uk",
    },
    Partition {
        regions: "us-isof-",
        suffix: ".csp.hci.ic.gov",
        dual_stack: ".api.aws.hci.ic.gov",
    },
    // GovCloud has names like everybody's.
    Partition {
        regions: "",
        suffix: ".amazonaws.com",
        dual_stack: ".api.aws",
    },
];

/// What the names of AWS's hosts end in.
pub(crate) fn suffixes() -> impl Iterator<Item = &'static str> {
    PARTITIONS
        .iter()
        .flat_map(|partition| [partition.suffix, partition.dual_stack])
}

/// Lower case, which the signature insists on, and at least one hyphen, which every region has.
pub(crate) fn is_region(text: &str) -> bool {
    text.contains('-')
        && text.split('-').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

/// Which of a region's endpoints is called, of Cognito and of the control plane.
#[cfg(any(feature = "cognito", feature = "control-plane"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ServiceEndpoint {
    /// The one that every region has.
    #[default]
    Standard,
    /// The one whose cryptography is validated by FIPS 140. Few regions have it. It is about the service's end of the
    /// connection; for ours, choose the cryptography with the features of TLS.
    Fips,
}

#[cfg(any(feature = "cognito", feature = "control-plane"))]
impl ServiceEndpoint {
    /// The host of a service in a region.
    pub(crate) fn host(self, service: &str, region: &str) -> String {
        let partition = PARTITIONS
            .iter()
            .find(|partition| region.starts_with(partition.regions));
        let suffix = partition.map_or(".amazonaws.com", |partition| partition.suffix);
        let fips = match self {
            Self::Standard => "",
            Self::Fips => "-fips",
        };
        format!("{service}{fips}.{region}{suffix}")
    }
}

#[cfg(all(test, any(feature = "cognito", feature = "control-plane")))]
mod tests {
    use super::*;

    /// As botocore's endpoint rules resolve them.
    #[test]
    fn each_partition_has_its_own_names() {
        use ServiceEndpoint::{Fips, Standard};
        for (kind, service, region, host) in [
            (Standard, "iot", "eu-west-1", "iot.eu-west-1.amazonaws.com"),
            (Fips, "iot", "us-east-1", "iot-fips.us-east-1.amazonaws.com"),
            (
                Fips,
                "cognito-identity",
                "us-gov-west-1",
                "cognito-identity-fips.us-gov-west-1.amazonaws.com",
            ),
            (
                Standard,
                "cognito-identity",
                "cn-north-1",
                "cognito-identity.cn-north-1.amazonaws.com.cn",
            ),
            (
                Standard,
                "iot",
                "cn-northwest-1",
                "iot.cn-northwest-1.amazonaws.com.cn",
            ),
            (
                Standard,
                "cognito-identity",
                "eusc-de-east-1",
                "cognito-identity.eusc-de-east-1.amazonaws.eu",
            ),
            (
                Standard,
                "iot",
                "us-iso-east-1",
                "iot.us-iso-east-1.c2s.ic.gov",
            ),
            (
                Fips,
                "iot",
                "us-isob-east-1",
                "iot-fips.us-isob-east-1.sc2s.sgov.gov",
            ),
            (
                Standard,
                "iot",
                "eu-isoe-west-1",
                "iot.eu-isoe-west-1.cloud.adc-e.uk",
            ),
            (
                Standard,
                "iot",
                "us-isof-south-1",
                "iot.us-isof-south-1.csp.hci.ic.gov",
            ),
        ] {
            assert_eq!(kind.host(service, region), host);
        }
    }
}
