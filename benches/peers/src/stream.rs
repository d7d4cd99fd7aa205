//! The packets that are measured: written byte by byte here, by no codec of the comparison, from a
//! fixed seed.

/// The two versions that every peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V4,
    V5,
}

impl Version {
    pub const ALL: [Self; 2] = [Self::V4, Self::V5];

    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V5 => "v5",
        }
    }
}

/// A contiguous stream of packets of one kind or a mix.
pub struct Stream {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub packets: usize,
}

const LENGTH: usize = 256 * 1024;
const LENGTH_OF_LARGE: usize = 1024 * 1024;

/// What fills a stream, one packet at a time.
type Kind = fn(&mut Writer);

/// Every workload of a version.
pub fn all(version: Version) -> Vec<Stream> {
    let mut kinds: Vec<(&'static str, Kind, usize)> = vec![
        ("1-pub0-64B", |w| w.publish(0, 64, false), LENGTH),
        ("2-pub1-64B", |w| w.publish(1, 64, false), LENGTH),
        ("3-pub0-4K", |w| w.publish(0, 4096, false), LENGTH),
        (
            "4-pub0-128K",
            |w| w.publish(0, 128 * 1024, false),
            LENGTH_OF_LARGE,
        ),
        ("6-puback", |w| w.ack(4), LENGTH),
        ("7a-subscribe8", |w| w.subscribe(8), LENGTH),
        ("7b-suback8", |w| w.suback(8), LENGTH),
        ("8-connect", Writer::connect, LENGTH),
        ("9-mixed", Writer::mixed, LENGTH),
    ];
    if version == Version::V5 {
        kinds.insert(4, ("5-pub1-6props", |w| w.publish(1, 64, true), LENGTH));
    }
    kinds
        .into_iter()
        .map(|(name, kind, length)| fill(name, version, kind, length))
        .collect()
}

fn fill(name: &'static str, version: Version, kind: Kind, length: usize) -> Stream {
    let mut writer = Writer {
        version,
        random: 0x9e37_79b9_7f4a_7c15,
        bytes: Vec::with_capacity(length * 2),
    };
    let mut packets = 0;
    while writer.bytes.len() < length {
        kind(&mut writer);
        packets += 1;
    }
    Stream {
        name,
        bytes: writer.bytes,
        packets,
    }
}

struct Writer {
    version: Version,
    /// State of an xorshift generator.
    random: u64,
    bytes: Vec<u8>,
}

impl Writer {
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 33).expect("31 bits") % bound
    }

    fn packet(&mut self, first: u8, body: &[u8]) {
        self.bytes.push(first);
        variable(&mut self.bytes, body.len());
        self.bytes.extend_from_slice(body);
    }

    /// 32 bytes in 7 levels.
    fn topic(&mut self) -> String {
        let (a, b, c) = (self.below(100), self.below(100), self.below(1000));
        let topic = format!("s{a:02}/b{b:02}/f07/r21/d{c:03}/temp/v00042");
        assert_eq!((topic.len(), topic.split('/').count()), (32, 7));
        topic
    }

    fn id(&mut self) -> u16 {
        u16::try_from(self.below(65_535) + 1).expect("16 bits")
    }

    fn fill(&mut self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| b'a' + u8::try_from(self.below(26)).expect("a letter"))
            .collect()
    }

    fn text(&mut self, length: usize) -> String {
        String::from_utf8(self.fill(length)).expect("letters")
    }

    /// Message Expiry Interval, Content Type and Correlation Data of 16 bytes, three User Properties.
    fn six_properties(&mut self) -> Vec<u8> {
        let mut block = vec![0x02, 0, 0, 14, 16];
        block.push(0x03);
        string(&mut block, "application/json");
        block.push(0x09);
        let correlation = self.text(16);
        string(&mut block, &correlation);
        for name in ["trace", "tenant", "schema"] {
            block.push(0x26);
            string(&mut block, name);
            let value = self.text(12);
            string(&mut block, &value);
        }
        block
    }

    fn publish(&mut self, qos: u8, payload: usize, properties: bool) {
        let mut body = Vec::with_capacity(payload + 256);
        let topic = self.topic();
        string(&mut body, &topic);
        if qos > 0 {
            body.extend(self.id().to_be_bytes());
        }
        if self.version == Version::V5 {
            let block = if properties {
                self.six_properties()
            } else {
                Vec::new()
            };
            variable(&mut body, block.len());
            body.extend(block);
        }
        body.extend(self.fill(payload));
        self.packet(0x30 | qos << 1, &body);
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP in the short form, which means success in both versions.
    fn ack(&mut self, packet_type: u8) {
        let id = self.id().to_be_bytes();
        self.packet(packet_type << 4 | if packet_type == 6 { 2 } else { 0 }, &id);
    }

    fn subscribe(&mut self, filters: usize) {
        let mut body = self.id().to_be_bytes().to_vec();
        self.no_properties(&mut body);
        for at in 0..filters {
            let topic = self.topic();
            let filter = match at % 4 {
                0 => topic.replace("r21", "+"),
                1 => topic.replace("temp/v00042", "#"),
                _ => topic,
            };
            string(&mut body, &filter);
            body.push(u8::try_from(at % 2).expect("a QoS"));
        }
        self.packet(0x82, &body);
    }

    fn suback(&mut self, codes: usize) {
        let mut body = self.id().to_be_bytes().to_vec();
        self.no_properties(&mut body);
        body.extend((0..codes).map(|at| u8::try_from(at % 2).expect("a QoS")));
        self.packet(0x90, &body);
    }

    /// With a will (24 and 32 bytes), a user name (12) and a password (16).
    fn connect(&mut self) {
        let mut body = Vec::new();
        string(&mut body, "MQTT");
        body.extend([
            if self.version == Version::V4 { 4 } else { 5 },
            0b1100_1110,
            0,
            60,
        ]);
        self.no_properties(&mut body);
        for (at, length) in [20, 24, 32, 12, 16].into_iter().enumerate() {
            if at == 1 {
                self.no_properties(&mut body);
            }
            let text = self.text(length);
            string(&mut body, &text);
        }
        self.packet(0x10, &body);
    }

    /// 70 % PUBLISH of QoS 0, 20 % of QoS 1, 8 % acknowledgements, 1 % PINGREQ, 1 % the rest.
    fn mixed(&mut self) {
        let properties = self.below(100) < 28;
        match self.below(100) {
            0..70 => {
                let payload = 32 + self.below(97);
                self.publish(0, payload, properties);
            }
            70..90 => {
                let payload = 64 + self.below(449);
                self.publish(1, payload, properties);
            }
            90..98 => {
                let packet_type = u8::try_from(4 + self.below(4)).expect("a packet type");
                self.ack(packet_type);
            }
            98 => self.packet(0xc0, &[]),
            _ => match self.below(3) {
                0 => self.subscribe(2),
                1 => self.suback(2),
                _ => self.connect(),
            },
        }
    }

    /// The empty property block that MQTT 5 wants.
    fn no_properties(&self, body: &mut Vec<u8>) {
        if self.version == Version::V5 {
            body.push(0);
        }
    }
}

fn string(body: &mut Vec<u8>, text: &str) {
    body.extend(
        u16::try_from(text.len())
            .expect("a short text")
            .to_be_bytes(),
    );
    body.extend(text.as_bytes());
}

fn variable(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let more = value > 127;
        bytes.push(u8::try_from(value & 127).expect("7 bits") | if more { 128 } else { 0 });
        value >>= 7;
        if !more {
            break;
        }
    }
}
