//! The one instant that a signature names three times.

use std::time::{SystemTime, UNIX_EPOCH};

use time::UtcDateTime;

use crate::error::Error;

/// `YYYYMMDDThhmmssZ`. The day of the scope is its beginning, so the two cannot disagree around midnight.
pub(crate) struct Stamp([u8; 16]);

/// `YYYYMMDD`.
pub(crate) type Day = [u8; 8];

impl Stamp {
    /// Cuts milliseconds off.
    pub(crate) fn new(time: SystemTime) -> Result<Self, Error> {
        let seconds = time
            .duration_since(UNIX_EPOCH)
            .map_err(|_| Error::TimeOutOfRange)?
            .as_secs();
        let utc = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| UtcDateTime::from_unix_timestamp(seconds).ok())
            .ok_or(Error::TimeOutOfRange)?;
        // Another crate may have switched on `time`'s larger range.
        let year = u32::try_from(utc.year())
            .ok()
            .filter(|year| *year <= 9_999)
            .ok_or(Error::TimeOutOfRange)?;

        let [y1, y2] = two_digits(year / 100);
        let [y3, y4] = two_digits(year % 100);
        let [m1, m2] = two_digits(u8::from(utc.month()).into());
        let [d1, d2] = two_digits(utc.day().into());
        let [h1, h2] = two_digits(utc.hour().into());
        let [n1, n2] = two_digits(utc.minute().into());
        let [s1, s2] = two_digits(utc.second().into());
        let stamp = [
            y1, y2, y3, y4, m1, m2, d1, d2, b'T', h1, h2, n1, n2, s1, s2, b'Z',
        ];
        Ok(Self(stamp))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn day(&self) -> Day {
        let [y1, y2, y3, y4, m1, m2, d1, d2, ..] = self.0;
        [y1, y2, y3, y4, m1, m2, d1, d2]
    }
}

/// Of a number below 100.
fn two_digits(number: u32) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stamp(millis: u64) -> Result<String, Error> {
        Stamp::new(UNIX_EPOCH + Duration::from_millis(millis))
            .map(|stamp| stamp.as_str().to_owned())
    }

    #[test]
    fn instants_are_written_in_utc_with_milliseconds_cut() {
        assert_eq!(stamp(0).unwrap(), "19700101T000000Z");
        assert_eq!(stamp(1_709_251_199_999).unwrap(), "20240229T235959Z");
        assert_eq!(stamp(1_440_938_160_000).unwrap(), "20150830T123600Z");
    }

    #[test]
    fn only_years_with_four_digits_have_a_stamp() {
        assert_eq!(stamp(253_402_300_799_000).unwrap(), "99991231T235959Z");
        assert_eq!(stamp(253_402_300_800_000), Err(Error::TimeOutOfRange));
        assert_eq!(
            Stamp::new(UNIX_EPOCH - Duration::from_millis(1)).map(|_| ()),
            Err(Error::TimeOutOfRange)
        );
    }
}
