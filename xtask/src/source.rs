//! Just enough of a Rust lexer to look for words in code: tokens with their lines, without comments,
//! without the insides of literals, and without what only tests compile.

/// A word or a punctuation character, and its line, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

impl Token {
    pub(crate) fn is_word(&self) -> bool {
        self.text
            .starts_with(|c: char| c == '_' || c.is_alphabetic())
    }
}

/// The tokens of a file, without items under `#[cfg(test)]`.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    without_tests(lex(source))
}

/// The stretches of tokens that make up the public interface: each item that begins with a plain
/// `pub` up to its body (with the body, for enums and traits), and the head of each trait `impl`.
pub(crate) fn public_items(tokens: &[Token]) -> Vec<&[Token]> {
    let mut items = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let next = tokens.get(at + 1).map(|token| token.text.as_str());
        let public = token.text == "pub" && next != Some("(");
        // `impl` begins an item only where a statement could: not in `fn f(x: impl Trait)`.
        let before = at
            .checked_sub(1)
            .and_then(|before| tokens.get(before))
            .map(|token| token.text.as_str());
        let implementation =
            token.text == "impl" && matches!(before, None | Some("}" | "]" | ";" | "{"));
        if public {
            let with_body = matches!(next, Some("enum" | "trait"));
            items.push(&tokens[at..end_of_item(tokens, at, with_body)]);
        } else if implementation {
            let head = &tokens[at..end_of_item(tokens, at, false)];
            if head.iter().any(|token| token.text == "for") {
                items.push(head);
            }
        }
        at += 1;
    }
    items
}

/// Whether the words of `path` stand in a row, joined by `::`.
pub(crate) fn has_path(tokens: &[Token], path: &str) -> Option<usize> {
    let wanted = lex(path);
    let found = tokens
        .windows(wanted.len())
        .find(|window| window.iter().zip(&wanted).all(|(a, b)| a.text == b.text))?;
    found.first().map(|token| token.line)
}

/// Splits an identifier into lower-case words: `TlsConfig`, `tls_config` and `TLS_CONFIG` all hold
/// `tls`.
pub(crate) fn words(identifier: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let chars: Vec<char> = identifier.chars().collect();
    for (at, &c) in chars.iter().enumerate() {
        let previous_lower = at > 0 && chars[at - 1].is_lowercase();
        let next_lower = chars.get(at + 1).is_some_and(|next| next.is_lowercase());
        if c == '_' || (c.is_uppercase() && (previous_lower || next_lower)) {
            words.push(String::new());
        }
        if c != '_'
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn lex(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    let starts = |at: usize, what: &str| {
        what.chars()
            .enumerate()
            .all(|(i, c)| chars.get(at + i) == Some(&c))
    };
    while let Some(&c) = chars.get(at) {
        let begin = at;
        if starts(at, "//") {
            while chars.get(at).is_some_and(|&c| c != '\n') {
                at += 1;
            }
        } else if starts(at, "/*") {
            let mut depth = 0;
            while at < chars.len() {
                if starts(at, "/*") {
                    depth += 1;
                    at += 2;
                } else if starts(at, "*/") {
                    depth -= 1;
                    at += 2;
                } else {
                    at += 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else if let Some(end) = raw_string(&chars, at) {
            at = end;
        } else if c == '"' || starts(at, "b\"") || starts(at, "c\"") {
            at += if c == '"' { 1 } else { 2 };
            while chars.get(at).is_some_and(|&c| c != '"') {
                at += if chars.get(at) == Some(&'\\') { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' || starts(at, "b'") {
            at += if c == '\'' { 1 } else { 2 };
            if chars.get(at) == Some(&'\\') {
                at += 2;
                while chars.get(at).is_some_and(|&c| c != '\'') {
                    at += 1;
                }
                at += 1;
            } else if chars.get(at + 1) == Some(&'\'') {
                at += 2;
            }
            // Otherwise a lifetime: its name becomes a word of its own, which harms no search.
        } else if c == '_' || c.is_alphanumeric() {
            while chars
                .get(at)
                .is_some_and(|&c| c == '_' || c.is_alphanumeric())
            {
                at += 1;
            }
            tokens.push(Token {
                text: chars[begin..at].iter().collect(),
                line,
            });
        } else {
            if !c.is_whitespace() {
                tokens.push(Token {
                    text: c.to_string(),
                    line,
                });
            }
            at += 1;
        }
        let end = at.min(chars.len());
        line += chars[begin..end].iter().filter(|&&c| c == '\n').count();
    }
    tokens
}

/// The end of the raw string that begins at `at`, if one does.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let mut cursor = at;
    if matches!(chars.get(cursor), Some('b' | 'c')) {
        cursor += 1;
    }
    if chars.get(cursor) != Some(&'r') {
        return None;
    }
    cursor += 1;
    let hashes = chars[cursor..].iter().take_while(|&&c| c == '#').count();
    cursor += hashes;
    if chars.get(cursor) != Some(&'"') {
        return None;
    }
    cursor += 1;
    while cursor < chars.len() {
        if chars[cursor] == '"'
            && chars[cursor + 1..]
                .iter()
                .take(hashes)
                .filter(|&&c| c == '#')
                .count()
                == hashes
        {
            return Some(cursor + 1 + hashes);
        }
        cursor += 1;
    }
    Some(chars.len())
}

fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].text == "#" && tokens.get(at + 1).is_some_and(|token| token.text == "[") {
            let end = closing(&tokens, at + 1);
            let has = |word: &str| tokens[at..end].iter().any(|token| token.text == word);
            if has("cfg") && has("test") && !has("not") && !has("any") {
                at = end_of_item(&tokens, end, true);
                continue;
            }
        }
        kept.push(tokens[at].clone());
        at += 1;
    }
    kept
}

/// Where the item at `from` ends: after its `;`, or at its body's brace, or after the body.
fn end_of_item(tokens: &[Token], from: usize, with_body: bool) -> usize {
    let mut at = from;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "(" | "[" => at = closing(tokens, at),
            ";" => return at + 1,
            // The end of a field, or of the block that held it.
            "," if !with_body && is_field(&tokens[from..at]) => return at,
            "}" => return at,
            "{" if with_body => return closing(tokens, at),
            "{" => return at,
            _ => at += 1,
        }
    }
    tokens.len()
}

/// Whether the tokens begin a public field: `pub name: ...`.
fn is_field(tokens: &[Token]) -> bool {
    tokens.get(2).is_some_and(|token| token.text == ":")
}

/// The place after the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let source = "a /* b /* c */ d */ e // f\n\"g\\\"h\" r#\"i \" j\"# 'k' '\\n' b'l' b\"m\" n";
        assert_eq!(texts(source), ["a", "e", "n"]);
    }

    #[test]
    fn lines_are_counted_through_literals() {
        let found = tokens("\"\n\n\" a\n/*\n*/ b");
        assert_eq!(
            found.iter().map(|token| token.line).collect::<Vec<_>>(),
            [3, 5]
        );
    }

    #[test]
    fn code_under_cfg_test_is_left_out() {
        let source = "fn a() {} #[cfg(test)] mod tests { fn b() {} } #[cfg(not(test))] fn c() {}";
        let texts = texts(source);
        assert!(!texts.iter().any(|text| text == "b"));
        assert!(texts.iter().any(|text| text == "c"));
    }

    #[test]
    fn public_items_are_signatures_without_bodies() {
        let source = "pub fn f(x: A) -> B { C } pub(crate) fn g(x: D) {} fn h() {} \
                      pub struct S { pub x: E, y: F } pub enum G { H(I) } impl From<J> for K { fn m() {} }";
        let tokens = tokens(source);
        let public: Vec<&str> = public_items(&tokens)
            .into_iter()
            .flatten()
            .map(|token| token.text.as_str())
            .collect();
        for word in ["A", "B", "E", "I", "J", "K"] {
            assert!(public.contains(&word), "{word} is public");
        }
        for word in ["C", "D", "F", "m"] {
            assert!(!public.contains(&word), "{word} is private");
        }
    }

    #[test]
    fn identifiers_split_into_words() {
        assert_eq!(words("TlsConfig"), ["tls", "config"]);
        assert_eq!(words("MQTT_PORT"), ["mqtt", "port"]);
        assert_eq!(words("AWSIoTProvider"), ["aws", "io", "t", "provider"]);
        assert_eq!(words("rows"), ["rows"]);
    }
}
