//! Sets of filters and topics, the same for our index and for its peers. Deterministic.

/// A set of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Kind {
    /// Five levels, about 32 bytes, no wildcards: four metrics of each device.
    Exact,
    /// The same, one in ten with a `+` at a random level.
    Plus,
    /// The same, and one in twenty cut off with a `#` after two to four levels.
    Multi,
    /// Nine levels, about 64 bytes, one in ten with `+`, one in twenty with `#` after six to eight.
    Deep,
    /// Ten levels, every combination of `+` and a literal, then a level that never comes.
    Hostile,
}

impl Kind {
    /// A short name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Plus => "plus",
            Self::Multi => "multi",
            Self::Deep => "deep",
            Self::Hostile => "hostile",
        }
    }

    /// `n` filters; 1,024 if hostile.
    #[must_use]
    pub fn filters(self, n: usize) -> Vec<String> {
        if self == Self::Hostile {
            let combination = |bits: usize| {
                let levels =
                    (0..10).map(|place| if bits >> place & 1 == 1 { "+" } else { "level" });
                levels.chain(["never"]).collect::<Vec<_>>().join("/")
            };
            return (0..1_024).map(combination).collect();
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        (0..n).map(|i| self.filter(i, &mut random)).collect()
    }

    fn filter(self, i: usize, random: &mut Random) -> String {
        let text = self.topic(i / 4, i % 4);
        let mut levels: Vec<&str> = text.split('/').collect();
        let roll = random.below(100);
        if self != Self::Exact && roll < 10 {
            let at = random.below(levels.len());
            levels[at] = "+";
        } else if matches!(self, Self::Multi | Self::Deep) && roll < 15 {
            let keep = random.below(3) + if self == Self::Deep { 6 } else { 2 };
            levels.truncate(keep);
            levels.push("#");
        }
        levels.join("/")
    }

    fn topic(self, device: usize, metric: usize) -> String {
        let metric = ["temp", "hum", "volt", "rssi"][metric % 4];
        let site = device % 97;
        let building = device / 97 % 11;
        let floor = device / 1_067 % 7;
        if self == Self::Deep {
            format!(
                "org/region{}/site{site:02}/bldg{building:02}/floor{floor}/line{:03}/cell{}/dev{device:06}/{metric}",
                site % 5,
                device % 311,
                device % 13
            )
        } else {
            format!("site{site:02}/bldg{building:02}/floor{floor}/dev{device:06}/{metric}")
        }
    }

    /// Distinct topics for a set of `n` filters, four in five of a device in it, in random order: as many
    /// as make the caches of a large set cold.
    #[must_use]
    pub fn topics(self, n: usize) -> Vec<String> {
        if self == Self::Hostile {
            return vec![["level"; 10].join("/")];
        }
        let mut random = Random(0x0123_4567_89ab_cdef);
        let devices = (n / 4).max(1);
        let count = match n {
            ..=1_000 => 2_000,
            1_001..=100_000 => 20_000,
            _ => 100_000,
        };
        (0..count)
            .map(|_| {
                let known = random.below(5) < 4;
                let device = random.below(devices) + if known { 0 } else { devices };
                self.topic(device, random.below(4))
            })
            .collect()
    }
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as usize * bound) >> 32
    }
}
