//! A text's tokens, checked and made ready before they are parsed.

use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};

use crate::error::{Error, Result};

/// Operators in one statement at the most.
const OPERATORS_MAX: usize = 1000;

/// The tokens of a request.
pub(crate) fn tokens(dialect: &dyn Dialect, sql: &str) -> Result<Vec<TokenWithSpan>> {
    let mut tokens = Tokenizer::new(dialect, sql).tokenize_with_location().map_err(ParserError::from)?;
    check_operators(&tokens)?;
    call_current_user(&mut tokens);
    free_keywords(&mut tokens);
    Ok(join_literals(tokens))
}

/// `CURRENT_USER` alone is a value to the parser; before parentheses it is the name of a function like any other.
fn call_current_user(tokens: &mut [TokenWithSpan]) {
    let mut is_called = false;
    for token in tokens.iter_mut().rev() {
        match &mut token.token {
            Token::Whitespace(_) => {}
            Token::Word(word) if is_called && word.keyword == Keyword::CURRENT_USER => {
                word.keyword = Keyword::NoKeyword;
            }
            other => is_called = *other == Token::LParen,
        }
    }
}

/// Texts on lines of their own, one behind the other, are one text.
fn join_literals(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut joined: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut has_newline = false;
    // Where the last text stands, while nothing but white space follows.
    let mut last_text: Option<usize> = None;
    for token in tokens {
        match (&token.token, last_text) {
            (Token::Whitespace(space), _) => has_newline |= matches!(space, Whitespace::Newline),
            (Token::SingleQuotedString(more), Some(at)) if has_newline => {
                if let Some(TokenWithSpan { token: Token::SingleQuotedString(text), .. }) = joined.get_mut(at)
                {
                    text.push_str(more);
                    has_newline = false;
                    continue;
                }
            }
            (Token::SingleQuotedString(_), _) => {
                last_text = Some(joined.len());
                has_newline = false;
            }
            _ => last_text = None,
        }
        joined.push(token);
    }
    joined
}

/// Words that name a column where they stand, though the parser has another use for them: `key TEXT` in a list of columns,
/// `interval` without a literal behind it.
fn free_keywords(tokens: &mut [TokenWithSpan]) {
    let significant: Vec<usize> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !matches!(token.token, Token::Whitespace(_)))
        .map(|(at, _)| at)
        .collect();
    let is_word =
        |token: Option<&TokenWithSpan>| matches!(token, Some(TokenWithSpan { token: Token::Word(_), .. }));
    for (place, at) in significant.iter().enumerate() {
        let token_at =
            |place: Option<usize>| place.and_then(|it| significant.get(it)).and_then(|at| tokens.get(*at));
        let before = token_at(place.checked_sub(1)).map(|token| token.token.clone());
        let after = token_at(place.checked_add(1)).cloned();
        let Some(TokenWithSpan { token: Token::Word(word), .. }) = tokens.get(*at) else { continue };
        let begins_item = matches!(before, Some(Token::LParen | Token::Comma));
        let is_free = match word.keyword {
            Keyword::KEY | Keyword::INDEX | Keyword::FULLTEXT | Keyword::SPATIAL => {
                begins_item && is_word(after.as_ref())
            }
            Keyword::INTERVAL => {
                !matches!(
                    after.as_ref().map(|token| &token.token),
                    Some(
                        Token::SingleQuotedString(_)
                            | Token::EscapedStringLiteral(_)
                            | Token::DollarQuotedString(_)
                            | Token::Number(..)
                            | Token::Minus
                            | Token::LParen
                            | Token::Placeholder(_)
                    )
                ) && !matches!(&before, Some(Token::DoubleColon))
                    && !matches!(&before, Some(Token::Word(word)) if word.keyword == Keyword::AS && is_in_cast(tokens, &significant, place))
            }
            _ => false,
        };
        if is_free && let Some(TokenWithSpan { token: Token::Word(word), .. }) = tokens.get_mut(*at) {
            word.keyword = Keyword::NoKeyword;
        }
    }
}

/// Whether `AS` before this place ends the value of a CAST.
fn is_in_cast(tokens: &[TokenWithSpan], significant: &[usize], place: usize) -> bool {
    let mut depth = 0_usize;
    let before = significant.get(..place).unwrap_or_default();
    for (at, index) in before.iter().enumerate().rev() {
        match tokens.get(*index).map(|token| &token.token) {
            Some(Token::RParen) => depth += 1,
            Some(Token::LParen) if depth > 0 => depth -= 1,
            Some(Token::LParen) => {
                let name = at.checked_sub(1).and_then(|at| before.get(at)).and_then(|at| tokens.get(*at));
                return matches!(
                    name.map(|token| &token.token),
                    Some(Token::Word(word)) if matches!(word.keyword, Keyword::CAST | Keyword::TRY_CAST | Keyword::SAFE_CAST)
                );
            }
            _ => {}
        }
    }
    false
}

/// Bounds how deep an expression can get. Parentheses are bounded by the parser, but a chain `a + a + …` is as deep as
/// it is long, and whatever walks it recurses.
fn check_operators(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut operators = 0;
    let mut operand_before = false;
    for token in tokens {
        let (chains, is_operand) = match &token.token {
            Token::Whitespace(_) => continue,
            Token::SemiColon => {
                operators = 0;
                (false, false)
            }
            Token::Word(word) => {
                let chains = matches!(
                    word.keyword,
                    Keyword::AND
                        | Keyword::OR
                        | Keyword::XOR
                        | Keyword::NOT
                        | Keyword::IS
                        | Keyword::IN
                        | Keyword::LIKE
                        | Keyword::ILIKE
                        | Keyword::BETWEEN
                        | Keyword::UNION
                        | Keyword::EXCEPT
                        | Keyword::INTERSECT
                        | Keyword::JOIN
                        | Keyword::COLLATE
                        | Keyword::AT
                        | Keyword::DIV
                );
                (chains, !chains)
            }
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Placeholder(_)
            | Token::RParen
            | Token::RBracket => (false, true),
            Token::Comma | Token::LParen | Token::Period | Token::Colon => (false, false),
            // After no operand it is a sign, and the parser bounds how many of those stand in a row.
            Token::Minus | Token::Plus => (operand_before, false),
            _ => (true, false),
        };
        operators += usize::from(chains);
        operand_before = is_operand;
        if operators > OPERATORS_MAX {
            return Err(Error::Syntax {
                message: format!(
                    "the statement has more than {OPERATORS_MAX} operators; write column IN (…) or insert with VALUES"
                ),
            });
        }
    }
    Ok(())
}
