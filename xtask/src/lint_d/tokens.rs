//! A D script as tokens, as far as the rules need them.

use super::Finding;

/// What a token is. Comments are tokens, because some of them are marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name or a keyword.
    Word,
    Number,
    /// The text between the quotes, as it stands there.
    Text,
    /// The text between `/*` and `*/`.
    Comment,
    /// A line that begins with `#`.
    Pragma,
    /// One of the operators of two characters below, or a character.
    Sign,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    pub line: usize,
}

impl Token {
    pub fn is(&self, text: &str) -> bool {
        self.text == text && matches!(self.kind, Kind::Word | Kind::Sign)
    }

    pub fn is_word(&self) -> bool {
        self.kind == Kind::Word
    }
}

const SIGNS: [&str; 10] = ["->", "==", "!=", "<=", ">=", "&&", "||", "<<", ">>", "::"];

/// The tokens of a script.
pub fn tokens(script: &str) -> Result<Vec<Token>, Finding> {
    let mut scanner = Scanner {
        rest: script,
        line: 1,
    };
    let mut tokens = Vec::new();
    while let Some(token) = scanner.next()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Result<Option<Token>, Finding> {
        self.skip_blanks();
        let Some(first) = self.rest.chars().next() else {
            return Ok(None);
        };
        let (kind, length) = if let Some(comment) = self.rest.strip_prefix("/*") {
            let end = comment
                .find("*/")
                .ok_or_else(|| self.finding("a comment does not end"))?;
            (Kind::Comment, end + 4)
        } else if first == '#' {
            (
                Kind::Pragma,
                self.rest.find('\n').unwrap_or(self.rest.len()),
            )
        } else if first == '"' {
            (Kind::Text, self.quoted()?)
        } else if first.is_ascii_digit() {
            (Kind::Number, self.run())
        } else if first.is_ascii_alphabetic() || first == '_' {
            (Kind::Word, self.run())
        } else {
            let sign = SIGNS.iter().find(|sign| self.rest.starts_with(**sign));
            (Kind::Sign, sign.map_or(first.len_utf8(), |sign| sign.len()))
        };
        let (token, rest) = self.rest.split_at(length);
        let text = match kind {
            Kind::Comment => token[2..length - 2].trim(),
            Kind::Text => &token[1..length - 1],
            _ => token,
        };
        let token_line = self.line;
        self.line += token.matches('\n').count();
        self.rest = rest;
        Ok(Some(Token {
            kind,
            text: text.to_owned(),
            line: token_line,
        }))
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest.trim_start();
        let blanks = &self.rest[..self.rest.len() - rest.len()];
        self.line += blanks.matches('\n').count();
        self.rest = rest;
    }

    /// Length of a word or number.
    fn run(&self) -> usize {
        self.rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len())
    }

    /// Length of a string with its quotes.
    fn quoted(&self) -> Result<usize, Finding> {
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                '\n' => break,
                '"' if !escaped => return Ok(at + 1),
                _ => escaped = c == '\\' && !escaped,
            }
        }
        Err(self.finding("a string does not end on its line"))
    }

    fn finding(&self, text: &str) -> Finding {
        Finding {
            line: self.line,
            text: text.to_owned(),
        }
    }
}

/// A parenthesis, bracket or brace without its other half.
pub fn unbalanced(tokens: &[Token]) -> Option<Finding> {
    let mut open: Vec<&Token> = Vec::new();
    let alone = |token: &Token| {
        Some(Finding {
            line: token.line,
            text: format!("`{}` without its other half", token.text),
        })
    };
    for token in tokens.iter().filter(|token| token.kind == Kind::Sign) {
        let other = match &*token.text {
            "(" | "[" | "{" => {
                open.push(token);
                continue;
            }
            ")" => "(",
            "]" => "[",
            "}" => "{",
            _ => continue,
        };
        match open.pop() {
            Some(begin) if begin.is(other) => {}
            Some(begin) => return alone(begin),
            None => return alone(token),
        }
    }
    open.pop().and_then(alone)
}
