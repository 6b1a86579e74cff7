//! A text's tokens, checked and made ready before they are parsed.

use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, Result};

/// Operators in one statement at the most.
const OPERATORS_MAX: usize = 1000;

/// The tokens of a request.
pub(crate) fn tokens(dialect: &dyn Dialect, sql: &str) -> Result<Vec<TokenWithSpan>> {
    let mut tokens = Tokenizer::new(dialect, sql).tokenize_with_location().map_err(ParserError::from)?;
    check_operators(&tokens)?;
    call_current_user(&mut tokens);
    Ok(tokens)
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
