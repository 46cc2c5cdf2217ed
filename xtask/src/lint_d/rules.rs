//! The rules. Each says what DTrace would do, or what a reader of the output would suffer.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Finding, System,
    clauses::{Clause, Program, finding},
    tokens::{Kind, Token},
    words,
};

/// What breaks a rule.
pub fn all(program: &Program<'_>, system: System) -> Vec<Finding> {
    let rules = [
        options,
        no_flow,
        declared,
        cleared,
        enums_masked,
        hot_probes,
        marks,
        formats,
        declared_once,
    ];
    rules
        .iter()
        .flat_map(|rule| rule(program, system))
        .collect()
}

/// Without these the output has lines of DTrace's own, strings are cut at 256 bytes, and buffers
/// overflow early. `defaultargs`: a script without argument is no error.
fn options(program: &Program<'_>, _: System) -> Vec<Finding> {
    [
        "quiet",
        "defaultargs",
        "strsize",
        "dynvarsize",
        "bufsize",
        "switchrate",
    ]
    .iter()
    .filter(|name| {
        let set = |option: &&str| option.split('=').next() == Some(**name);
        !program.options.iter().any(set)
    })
    .map(|name| Finding {
        line: 1,
        text: format!("`#pragma D option {name}` is missing"),
    })
    .collect()
}

/// D has no loops; on Linux no `if` either, and on FreeBSD a predicate says as much.
fn no_flow(program: &Program<'_>, system: System) -> Vec<Finding> {
    let mut none: Vec<&str> = vec!["for", "while", "do", "goto", "switch"];
    if system == System::Linux {
        none.extend(["if", "else"]);
    }
    let words = program.all.iter().filter(|token| token.is_word());
    words
        .filter(|token| none.contains(&&*token.text))
        .map(|token| finding(token, format!("D has no `{}` here", token.text)))
        .collect()
}

/// The first assignment of a variable fixes its type: `self->vp = 0` makes an int of it, which
/// cuts an address in half. So its type is declared before.
fn declared(program: &Program<'_>, _: System) -> Vec<Finding> {
    let mut findings = Vec::new();
    for clause in &program.clauses {
        for used in clause.variables() {
            // `this->x = (struct vnode *)...`: the type of a pointer is in its first assignment.
            if used.scope == Some("this") {
                continue;
            }
            let before = program.declarations.iter().any(|declaration| {
                declaration.name == used.token.text
                    && declaration.scope == used.scope
                    && declaration.line < used.token.line
            });
            if !before {
                let text = format!("`{}` is not declared with its type before", used.name());
                findings.push(finding(used.token, text));
            }
        }
    }
    findings
}

/// What a thread leaves behind stays in memory as long as it lives, and is found by its next call.
fn cleared(program: &Program<'_>, _: System) -> Vec<Finding> {
    let is_cleared = |name: &str| {
        let mut statements = program.clauses.iter().flat_map(|clause| &clause.statements);
        statements.any(|statement| match &statement[..] {
            [scope, arrow, variable, equals, zero] => {
                scope.is("self")
                    && arrow.is("->")
                    && variable.is(name)
                    && equals.is("=")
                    && zero.text == "0"
            }
            _ => false,
        })
    };
    let own = program.declarations.iter();
    own.filter(|declaration| declaration.scope == Some("self") && !is_cleared(declaration.name))
        .map(|declaration| Finding {
            line: declaration.line,
            text: format!(
                "`self->{0}` is never cleared (`self->{0} = 0`)",
                declaration.name
            ),
        })
        .collect()
}

/// Enumerations of eight bits, of which DTrace on FreeBSD reads four bytes.
fn enums_masked(program: &Program<'_>, system: System) -> Vec<Finding> {
    if system == System::Linux {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (at, token) in program.all.iter().enumerate() {
        let is_member = at > 0 && program.all[at - 1].is("->");
        if !(is_member && (token.is("v_type") || token.is("type"))) {
            continue;
        }
        let next = |ahead: usize| program.all.get(at + ahead);
        let masked = next(1).is_some_and(|token| token.is("&"))
            && next(2).is_some_and(|token| token.text == "0xff");
        if !masked {
            let text = format!("`{0}` is an enum of one byte: `({0} & 0xff)`", token.text);
            findings.push(finding(token, text));
        }
    }
    findings
}

/// Probes that fire for each write, read or page of the system.
const HOT: [&str; 12] = [
    "vop_write:",
    "vop_read:",
    "vop_lookup:",
    "vop_getattr:",
    "vop_close:",
    "bufdone:",
    "bdwrite:",
    "bufwrite:",
    "vnode_pager_setsize:",
    "folio_end_writeback:",
    "bio_endio:",
    "block_rq_complete",
];

/// A clause on a hot probe has a predicate, or only resets what the clauses after it look at.
fn hot_probes(program: &Program<'_>, _: System) -> Vec<Finding> {
    let mut findings = Vec::new();
    for clause in &program.clauses {
        let hot = clause
            .probes
            .iter()
            .find(|probe| HOT.iter().any(|hot| probe.contains(hot)));
        let resets = clause.statements.iter().all(|statement| {
            matches!(&statement[..], [this, arrow, _, equals, zero]
                if this.is("this") && arrow.is("->") && equals.is("=") && ["0", "NULL"].contains(&&*zero.text))
        });
        if let (Some(probe), None, false) = (hot, &clause.predicate, resets) {
            findings.push(Finding {
                line: clause.line,
                text: format!("{probe} fires all the time: its clause needs a predicate"),
            });
        }
    }
    findings
}

/// Names that differ between releases stand where the marks are, and nowhere else: the marks are
/// what is replaced for older releases.
fn marks(program: &Program<'_>, system: System) -> Vec<Finding> {
    if system == System::Linux {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let comment_is = |at: usize, text: &str| {
        let next = program.all.get(at + 1);
        next.is_some_and(|next| next.kind == Kind::Comment && next.text == text)
    };
    for (at, token) in program.all.iter().enumerate() {
        let text = match &*token.text {
            _ if token.kind == Kind::Comment => continue,
            "b_exterr" if !comment_is(at + 2, "b_error") => {
                "`b_exterr.error` without the mark `/* b_error */`"
            }
            "b_error" => "`b_error` is not there in 15.1: `b_exterr.error /* b_error */`",
            "0x1000" if !comment_is(at, "BIO_ERROR") => {
                "`0x1000` without the mark `/* BIO_ERROR */`"
            }
            "b_ioflags"
                if program
                    .all
                    .get(at + 2)
                    .is_none_or(|token| token.text != "0x1000") =>
            {
                "`b_ioflags` is compared with `0x1000 /* BIO_ERROR */` only"
            }
            _ => continue,
        };
        findings.push(finding(token, text));
    }
    findings
}

/// Every format has as many arguments as conversions and ends its line; names go through %S; a line
/// of the protocol is whole.
fn formats(program: &Program<'_>, _: System) -> Vec<Finding> {
    let own = words::own(program);
    let mut findings = Vec::new();
    for clause in &program.clauses {
        for statement in &clause.statements {
            let [function, open, arguments @ .., _] = &statement[..] else {
                continue;
            };
            if !(open.is("(") && (function.is("printf") || function.is("printa"))) {
                continue;
            }
            findings.extend(format(function, arguments, &own));
        }
    }
    findings
}

fn format(function: &Token, arguments: &[&Token], own: &BTreeSet<String>) -> Vec<Finding> {
    let arguments = at_commas(arguments);
    let Some(([text], values)) = arguments
        .split_first()
        .map(|(first, rest)| (&first[..], rest))
    else {
        return vec![finding(function, "the format is a string in this place")];
    };
    let mut findings = Vec::new();
    let mut wrong = |what: String| findings.push(finding(text, what));
    if !text.text.ends_with("\\n") {
        wrong("the format does not end its line".to_owned());
    }
    let is_fact = text.text.contains("mst1") || text.text.contains("\\t");
    if is_fact && !(text.text.starts_with("mst1\\t") && text.text.ends_with("\\t.\\n")) {
        wrong(
            "a line of the protocol begins with `mst1` and ends with a tab and a full stop"
                .to_owned(),
        );
    }
    let conversions = conversions(&text.text);
    if function.is("printa") {
        // Keys and results are those of the aggregation.
        if conversions.contains(&'s') {
            wrong("a key of printa goes through %S".to_owned());
        }
        return findings;
    }
    if conversions.len() != values.len() {
        let counts = format!(
            "{} conversions, {} arguments",
            conversions.len(),
            values.len()
        );
        wrong(counts);
        return findings;
    }
    for (conversion, value) in conversions.iter().zip(values) {
        if *conversion == 's' && !words::is_own(value, own) {
            let value: Vec<&str> = value.iter().map(|token| &*token.text).collect();
            wrong(format!(
                "`{}` by %s: a newline or tab in it breaks the line; by %S",
                value.concat()
            ));
        }
    }
    findings
}

/// The letters of the conversions of a format.
fn conversions(format: &str) -> Vec<char> {
    let mut found = Vec::new();
    let mut characters = format.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            continue;
        }
        // The letter may be after the length: `%lld`.
        match characters.find(|c| c.is_ascii_alphabetic() && !"hl".contains(*c) || *c == '%') {
            Some('%') | None => {}
            Some(letter) => found.push(letter),
        }
    }
    found
}

/// The arguments of a call.
fn at_commas<'a, 'b>(tokens: &'a [&'b Token]) -> Vec<&'a [&'b Token]> {
    let mut depth = 0;
    let is_comma = |token: &&Token| {
        match &*token.text {
            _ if token.kind != Kind::Sign => {}
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "," => return depth == 0,
            _ => {}
        }
        false
    };
    tokens.split(is_comma).collect()
}

/// Two declarations of a variable: the second may be of another type.
fn declared_once(program: &Program<'_>, _: System) -> Vec<Finding> {
    let mut lines: BTreeMap<(Option<&str>, &str), usize> = BTreeMap::new();
    let mut findings = Vec::new();
    for declaration in &program.declarations {
        if let Some(before) = lines.insert((declaration.scope, declaration.name), declaration.line)
        {
            findings.push(Finding {
                line: declaration.line,
                text: format!(
                    "`{}` is declared in line {before} already",
                    declaration.name
                ),
            });
        }
    }
    findings
}

/// A variable where it is used.
struct Used<'a> {
    scope: Option<&'static str>,
    token: &'a Token,
}

impl Used<'_> {
    fn name(&self) -> String {
        match self.scope {
            Some(scope) => format!("{scope}->{}", self.token.text),
            None => self.token.text.clone(),
        }
    }
}

impl Clause<'_> {
    /// Its variables: those of the thread and of the clause, associative arrays, and what it
    /// assigns to.
    fn variables(&self) -> Vec<Used<'_>> {
        let mut used = Vec::new();
        let predicate = self.predicate.iter();
        for tokens in predicate.chain(&self.statements) {
            for (at, token) in tokens.iter().enumerate() {
                used.extend(variable(tokens, at).map(|scope| Used { scope, token }));
            }
        }
        used
    }
}

/// Whether a token is a variable of the script, and of what scope.
fn variable(tokens: &[&Token], at: usize) -> Option<Option<&'static str>> {
    if !tokens[at].is_word() {
        return None;
    }
    let before = |back: usize| at.checked_sub(back).map(|at| tokens[at]);
    if before(1).is_some_and(|token| token.is("->")) {
        return ["self", "this"]
            .into_iter()
            .find(|scope| before(2).is_some_and(|token| token.is(scope)))
            .map(Some);
    }
    let foreign = |token: &Token| [".", "@", "`", "$"].iter().any(|sign| token.is(sign));
    if before(1).is_some_and(foreign) || tokens[at].is("args") {
        return None;
    }
    let next = tokens.get(at + 1)?;
    (next.is("[") || next.is("=")).then_some(None)
}
