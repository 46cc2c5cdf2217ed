//! Which strings are words of the script itself: only those may be printed by `%s`. What comes from
//! elsewhere, a file name or the name of a process, can hold a newline or a tab.

use std::collections::BTreeSet;

use super::{
    clauses::Program,
    tokens::{Kind, Token},
};

/// Variables, such as `this->told`, that are given the script's own words everywhere.
pub fn own(program: &Program<'_>) -> BTreeSet<String> {
    let assigned: Vec<(String, &[&Token])> = program
        .clauses
        .iter()
        .flat_map(|clause| &clause.statements)
        .filter_map(|statement| assignment(statement))
        .collect();
    let mut own: BTreeSet<String> = assigned.iter().map(|(name, _)| name.clone()).collect();
    // A variable that is given another one: again, until nothing is taken out any more.
    loop {
        let foreign: Vec<&String> = assigned
            .iter()
            .filter(|(name, value)| own.contains(name) && !is_own(value, &own))
            .map(|(name, _)| name)
            .collect();
        if foreign.is_empty() {
            return own;
        }
        for name in foreign {
            own.remove(name);
        }
    }
}

/// The variable and the value of a statement that assigns to `this->x`.
fn assignment<'a, 'b>(statement: &'a [&'b Token]) -> Option<(String, &'a [&'b Token])> {
    match statement {
        [this, arrow, name, equals, value @ ..]
            if this.is("this") && arrow.is("->") && equals.is("=") =>
        {
            Some((format!("this->{}", name.text), value))
        }
        _ => None,
    }
}

/// Whether an expression can only be a word of the script.
pub fn is_own(expression: &[&Token], own: &BTreeSet<String>) -> bool {
    values(expression).iter().all(|value| match value {
        [text] => text.kind == Kind::Text,
        [this, arrow, name] if this.is("this") && arrow.is("->") => {
            own.contains(&format!("this->{}", name.text))
        }
        // A number in digits.
        [function, ..] => function.is("lltostr"),
        [] => false,
    })
}

/// What an expression with `?:` can be; the expression itself if it has none.
fn values<'a, 'b>(expression: &'a [&'b Token]) -> Vec<&'a [&'b Token]> {
    let expression = bare(expression);
    let mut depth = 0;
    let mut question = None;
    let mut open = 0;
    for (at, token) in expression.iter().enumerate() {
        match &*token.text {
            _ if token.kind != Kind::Sign => {}
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "?" if depth == 0 => {
                open += 1;
                question.get_or_insert(at);
            }
            ":" if depth == 0 => {
                open -= 1;
                if let (0, Some(question)) = (open, question) {
                    let mut both = values(&expression[question + 1..at]);
                    both.extend(values(&expression[at + 1..]));
                    return both;
                }
            }
            _ => {}
        }
    }
    vec![expression]
}

/// Without parentheses around all of it.
fn bare<'a, 'b>(expression: &'a [&'b Token]) -> &'a [&'b Token] {
    let [first, inner @ .., last] = expression else {
        return expression;
    };
    if !(first.is("(") && last.is(")")) {
        return expression;
    }
    let mut depth = 1;
    for token in inner {
        depth += i32::from(token.is("(")) - i32::from(token.is(")"));
        if depth == 0 {
            return expression;
        }
    }
    bare(inner)
}
