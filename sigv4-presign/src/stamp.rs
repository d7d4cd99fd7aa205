//! The one instant that a signature names three times.

use std::time::{SystemTime, UNIX_EPOCH};

use time::UtcDateTime;

use crate::error::Error;

/// `YYYYMMDDThhmmssZ`. The day of the scope is its beginning, so the two cannot disagree around midnight.
#[derive(Clone, Copy)]
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

        let mut stamp = *b"00000000T000000Z";
        put(&mut stamp, 0, year / 100);
        put(&mut stamp, 2, year % 100);
        put(&mut stamp, 4, u32::from(u8::from(utc.month())));
        put(&mut stamp, 6, u32::from(utc.day()));
        put(&mut stamp, 9, u32::from(utc.hour()));
        put(&mut stamp, 11, u32::from(utc.minute()));
        put(&mut stamp, 13, u32::from(utc.second()));
        Ok(Self(stamp))
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn day(&self) -> Day {
        let [y1, y2, y3, y4, m1, m2, d1, d2, ..] = self.0;
        [y1, y2, y3, y4, m1, m2, d1, d2]
    }

    pub(crate) fn day_str(&self) -> &str {
        &self.as_str()[..8]
    }
}

/// Two digits of a number below 100.
fn put(stamp: &mut [u8; 16], at: usize, number: u32) {
    stamp[at] = b'0' + (number / 10 % 10) as u8;
    stamp[at + 1] = b'0' + (number % 10) as u8;
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
