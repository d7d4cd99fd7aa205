//! Signing keys, and a small cache of them.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::credentials::{Credentials, Fingerprint};
use crate::mac::{MacKey, Pad, TextHash, Wiped};
use crate::settings::Settings;
use crate::stamp::Day;

/// The key of one secret, day, region and service, ready for HMAC: that saves two of the compressions of every signature.
/// Overwritten when dropped.
#[derive(Clone)]
pub(crate) struct SigningKey(MacKey);

impl SigningKey {
    /// Of 18 blocks, most of which wait for one another, so that `text` is hashed between them.
    pub(crate) fn derive(
        credentials: &Credentials,
        day: Day,
        settings: &Settings<'_>,
        text: &mut TextHash<'_>,
        pad: &mut Pad,
    ) -> Self {
        let secret = credentials.secret_access_key().as_bytes();
        let mut padded = Wiped([0; 64]);
        let secret_key = if let Some(key) = padded.0.get_mut(..PREFIX.len() + secret.len()) {
            let (prefix, rest) = key.split_at_mut(PREFIX.len());
            prefix.copy_from_slice(PREFIX);
            rest.copy_from_slice(secret);
            MacKey::new(key)
        } else {
            // HMAC hashes a key that is longer than a block; done here, it needs no buffer of its length.
            let hash = Sha256::new_with_prefix(PREFIX).chain_update(secret);
            MacKey::new(&Wiped::<32>(hash.finalize().into()).0)
        };
        let date_key = secret_key.tag(&day, pad);
        let mut tag = |key: Wiped<32>, part: &[u8]| {
            text.step();
            MacKey::new(&key.0).tag(part, pad)
        };
        let region_key = tag(date_key, settings.region.as_bytes());
        let service_key = tag(region_key, settings.service.as_bytes());
        let signing_key = tag(service_key, TERMINATOR.as_bytes());
        text.step();
        Self(MacKey::new(&signing_key.0))
    }

    pub(crate) fn sign(self, string_to_sign: &[u8], pad: &mut Pad) -> [u8; 32] {
        self.0.tag(string_to_sign, pad).0
    }
}

/// Ends every credential scope.
pub(crate) const TERMINATOR: &str = "aws4_request";

const PREFIX: &[u8] = b"AWS4";

/// The keys used last. Looking one up compares a hash of the secret, so no secret outlives its credentials here.
pub(crate) struct KeyCache {
    capacity: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// Never longer than the capacity. A handful, so a scan beats a map.
    list: Vec<Entry>,
    /// Counts look-ups, to tell which entry was used longest ago.
    clock: u64,
}

struct Entry {
    fingerprint: Fingerprint,
    day: Day,
    region: Box<str>,
    service: Box<str>,
    key: SigningKey,
    last_used: u64,
}

impl KeyCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: Mutex::default(),
        }
    }

    pub(crate) fn key(
        &self,
        credentials: &Credentials,
        day: Day,
        settings: &Settings<'_>,
        text: &mut TextHash<'_>,
        pad: &mut Pad,
    ) -> SigningKey {
        if let Some(key) = self.find(credentials, day, settings) {
            return key;
        }
        // Outside the lock; two threads that derive the same key at once do no harm.
        let key = SigningKey::derive(credentials, day, settings, text, pad);
        self.insert(Entry {
            fingerprint: credentials.fingerprint().clone(),
            day,
            region: settings.region.into(),
            service: settings.service.into(),
            key: key.clone(),
            last_used: 0,
        });
        key
    }

    pub(crate) fn clear(&self) {
        self.lock().list.clear();
    }

    fn find(
        &self,
        credentials: &Credentials,
        day: Day,
        settings: &Settings<'_>,
    ) -> Option<SigningKey> {
        let mut entries = self.lock();
        entries.clock += 1;
        let clock = entries.clock;
        let entry = entries.list.iter_mut().find(|entry| {
            entry.day == day
                && *entry.region == *settings.region
                && *entry.service == *settings.service
                && entry.fingerprint == *credentials.fingerprint()
        })?;
        entry.last_used = clock;
        Some(entry.key.clone())
    }

    fn insert(&self, mut entry: Entry) {
        let mut entries = self.lock();
        entry.last_used = entries.clock;
        if entries.list.len() < self.capacity {
            entries.list.push(entry);
        } else if let Some(oldest) = entries.list.iter_mut().min_by_key(|entry| entry.last_used) {
            *oldest = entry;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Entries are whole at every point where a panic could strike.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache")
            .field("keys", &self.lock().list.len())
            .field("capacity", &self.capacity)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hmac(key: &[u8], message: &[u8]) -> Wiped<32> {
        use hmac::{Hmac, KeyInit as _, Mac as _};

        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(message);
        Wiped(mac.finalize().into_bytes().into())
    }

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn iam() -> Settings<'static> {
        Settings::new("us-east-1", "iam")
    }

    fn derive(credentials: &Credentials, day: Day, settings: &Settings<'_>) -> SigningKey {
        let mut text = TextHash::new(b"");
        SigningKey::derive(credentials, day, settings, &mut text, &mut Pad::default())
    }

    fn cached(
        cache: &KeyCache,
        credentials: &Credentials,
        day: Day,
        settings: &Settings<'_>,
    ) -> SigningKey {
        let mut text = TextHash::new(b"");
        cache.key(credentials, day, settings, &mut text, &mut Pad::default())
    }

    fn probe(key: SigningKey) -> [u8; 32] {
        key.sign(b"probe", &mut Pad::default())
    }

    /// The key that AWS's guide shows, by what it signs: HMAC under the key itself.
    fn assert_same_key(key: SigningKey, hex: &str) {
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(probe(key), hmac(&bytes, b"probe").0);
    }

    #[test]
    fn documented_signing_keys() {
        let credentials = Credentials::new("AKIDEXAMPLE", SECRET);
        assert_same_key(
            derive(&credentials, *b"20120215", &iam()),
            "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d",
        );
        assert_same_key(
            derive(&credentials, *b"20150830", &iam()),
            "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9",
        );
    }

    #[test]
    fn a_secret_of_any_length_is_hashed_as_hmac_does() {
        for length in [1, 59, 60, 61, 200] {
            let secret = "s".repeat(length);
            let credentials = Credentials::new("AKIDEXAMPLE", secret.as_str());
            let date = hmac(format!("AWS4{secret}").as_bytes(), b"20150830");
            let region = hmac(&date.0, b"us-east-1");
            let service = hmac(&region.0, b"iam");
            let expected = hmac(&hmac(&service.0, b"aws4_request").0, b"probe");
            let key = derive(&credentials, *b"20150830", &iam());
            assert_eq!(probe(key), expected.0, "{length}");
        }
    }

    #[test]
    fn the_cache_tells_every_part_of_the_scope_apart() {
        let cache = KeyCache::new(8);
        let one = Credentials::new("AKIDEXAMPLE", SECRET);
        let other = Credentials::new("AKIDEXAMPLE", "other");
        let cases = [
            (&one, *b"20150830", Settings::new("us-east-1", "iam")),
            (&one, *b"20150831", Settings::new("us-east-1", "iam")),
            (&one, *b"20150830", Settings::new("eu-west-1", "iam")),
            (&one, *b"20150830", Settings::new("us-east-1", "s3")),
            (&other, *b"20150830", Settings::new("us-east-1", "iam")),
        ];
        for _ in 0..2 {
            for (credentials, day, settings) in &cases {
                assert_eq!(
                    probe(cached(&cache, credentials, *day, settings)),
                    probe(derive(credentials, *day, settings)),
                );
            }
        }
        assert_eq!(cache.lock().list.len(), cases.len());
    }

    #[test]
    fn the_cache_never_outgrows_its_capacity_and_forgets_the_oldest() {
        let cache = KeyCache::new(2);
        let credentials = Credentials::new("AKIDEXAMPLE", SECRET);
        let days = [*b"20150801", *b"20150802", *b"20150801", *b"20150803"];
        for day in days {
            cached(&cache, &credentials, day, &iam());
        }
        let kept: Vec<Day> = cache.lock().list.iter().map(|entry| entry.day).collect();
        assert_eq!(kept, [*b"20150801", *b"20150803"]);

        let none = KeyCache::new(0);
        cached(&none, &credentials, *b"20150801", &iam());
        assert_eq!(none.lock().list.len(), 0);
    }
}
