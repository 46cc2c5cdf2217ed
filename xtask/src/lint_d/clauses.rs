//! A D script as options, declarations and clauses.

use super::{
    Finding,
    tokens::{Kind, Token},
};

/// A script.
#[derive(Debug, Default)]
pub struct Program<'a> {
    /// Text of each `#pragma D option`, such as `strsize=512`.
    pub options: Vec<&'a str>,
    /// In the order of the text, as are the clauses.
    pub declarations: Vec<Declaration<'a>>,
    pub clauses: Vec<Clause<'a>>,
    /// Everything, with the comments.
    pub all: &'a [Token],
}

/// `self uint64_t vp;`, `string name_of[uint64_t];`, `inline int LOST = 1;`
#[derive(Debug)]
pub struct Declaration<'a> {
    /// `self` or `this`.
    pub scope: Option<&'a str>,
    pub name: &'a str,
    pub line: usize,
}

/// Probes, a predicate or none, and statements.
#[derive(Debug)]
pub struct Clause<'a> {
    /// Such as `fbt::bufdone:entry`.
    pub probes: Vec<String>,
    pub line: usize,
    pub predicate: Option<Vec<&'a Token>>,
    pub statements: Vec<Vec<&'a Token>>,
}

/// Takes a script apart. Its brackets are known to be balanced.
pub fn parse(tokens: &[Token]) -> Result<Program<'_>, Finding> {
    let mut program = Program {
        all: tokens,
        ..Program::default()
    };
    let mut head: Vec<&Token> = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.kind {
            Kind::Comment => {}
            Kind::Pragma => {
                if let Some(option) = token.text.strip_prefix("#pragma D option") {
                    program.options.push(option.trim());
                }
            }
            Kind::Sign if token.is(";") => {
                declare(&mut program, &std::mem::take(&mut head))?;
            }
            Kind::Sign if token.is("{") => {
                let end = closing(tokens, at);
                let clause = clause(&std::mem::take(&mut head), &tokens[at..end], token)?;
                program.clauses.push(clause);
                at = end + 1;
            }
            _ => head.push(token),
        }
    }
    match head.first() {
        Some(rest) => Err(finding(rest, "neither a declaration nor a clause")),
        None => Ok(program),
    }
}

/// Where the `}` is that closes what was opened before `from`.
fn closing(tokens: &[Token], from: usize) -> usize {
    let mut depth = 1;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        if token.is("{") {
            depth += 1;
        } else if token.is("}") {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    tokens.len()
}

fn declare<'a>(program: &mut Program<'a>, head: &[&'a Token]) -> Result<(), Finding> {
    let Some(first) = head.first() else {
        return Ok(());
    };
    let scope = Some(&*first.text).filter(|word| ["self", "this"].contains(word));
    let end = head
        .iter()
        .position(|token| token.is("[") || token.is("="))
        .unwrap_or(head.len());
    let words: Vec<&&Token> = head[usize::from(scope.is_some())..end]
        .iter()
        .filter(|token| token.is_word())
        .collect();
    // A type and a name at least.
    let [_, .., name] = &words[..] else {
        return Err(finding(first, "a declaration needs a type and a name"));
    };
    program.declarations.push(Declaration {
        scope,
        name: &name.text,
        line: name.line,
    });
    Ok(())
}

fn clause<'a>(head: &[&'a Token], body: &'a [Token], brace: &Token) -> Result<Clause<'a>, Finding> {
    let slash = head.iter().position(|token| token.is("/"));
    let (names, predicate) = head.split_at(slash.unwrap_or(head.len()));
    if names.is_empty() {
        return Err(finding(brace, "a clause needs a probe"));
    }
    let predicate = match predicate {
        [] => None,
        [_, inner @ .., last] if last.is("/") => Some(inner.to_vec()),
        [first, ..] => return Err(finding(first, "a predicate ends with `/`")),
    };
    let probes: String = names.iter().map(|token| &*token.text).collect();
    Ok(Clause {
        probes: probes.split(',').map(str::to_owned).collect(),
        line: names[0].line,
        predicate,
        statements: statements(body)?,
    })
}

fn statements(body: &[Token]) -> Result<Vec<Vec<&Token>>, Finding> {
    let mut statements = Vec::new();
    let mut statement: Vec<&Token> = Vec::new();
    for token in body.iter().filter(|token| token.kind != Kind::Comment) {
        // The blocks of `if` are taken apart as if they stood alone.
        if token.is(";") || token.is("{") || token.is("}") {
            if !statement.is_empty() {
                statements.push(std::mem::take(&mut statement));
            }
        } else {
            statement.push(token);
        }
    }
    match statement.first() {
        Some(first) => Err(finding(first, "a statement ends with `;`")),
        None => Ok(statements),
    }
}

pub fn finding(token: &Token, text: impl Into<String>) -> Finding {
    Finding {
        line: token.line,
        text: text.into(),
    }
}
