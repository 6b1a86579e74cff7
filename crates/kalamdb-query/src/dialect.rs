//! The dialect that statements are parsed in: `sqlparser`'s generic one, with about PostgreSQL's order of operators.
//!
//! The generic one lets `->>`, `||` and the like bind less than `=`, and takes all that follows `IS [NOT] DISTINCT FROM` for its
//! right side, `AND` included.

use std::any::TypeId;
use std::cell::Cell;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::rewrite::call;

/// The generic dialect, but for the order of operators.
///
/// A parser backs out of an expression with an error in it and tries it otherwise, at each level anew: the dialect of a text allows so
/// many attempts and no more.
#[derive(Debug)]
pub struct SqlDialect {
    /// Beginnings of expressions that may still be tried.
    attempts: Cell<usize>,
}

impl SqlDialect {
    /// The dialect for one text: most texts take fewer attempts than they have bytes.
    pub const fn of_text(sql: &str) -> Self {
        Self { attempts: Cell::new(sql.len().saturating_mul(4).saturating_add(10_000)) }
    }
}

macro_rules! as_generic {
    ($($name:ident),* $(,)?) => {
        $(fn $name(&self) -> bool {
            GenericDialect {}.$name()
        })*
    };
}

impl Dialect for SqlDialect {
    // The parser asks for it by name in places.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect {}.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect {}.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect {}.is_identifier_part(ch)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            // More than any comparison, less than arithmetic.
            Precedence::PgOther => 25,
            other => GenericDialect {}.prec_value(other),
        }
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            // More than arithmetic and `||`: a path into JSON is one thing.
            Token::Arrow | Token::LongArrow | Token::HashArrow | Token::HashLongArrow => Some(Ok(45)),
            // More than multiplication.
            Token::Caret => Some(Ok(42)),
            _ if is_key_question(parser) => Some(Ok(25)),
            _ => None,
        }
    }

    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let Some(left) = self.attempts.get().checked_sub(1) else {
            return Some(Err(ParserError::RecursionLimitExceeded));
        };
        self.attempts.set(left);
        if begins_query(parser) {
            return parser.maybe_parse(bracketed_query).transpose();
        }
        if parser.peek_token_ref().token != Token::Minus {
            return None;
        }
        parser.advance_token();
        // A sign binds more than `^`.
        let operand = parser.parse_subexpr(43);
        Some(operand.map(|expr| Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(expr) }))
    }

    fn parse_infix(&self, parser: &mut Parser<'_>, left: &Expr, _: u8) -> Option<Result<Expr, ParserError>> {
        if is_key_question(parser) {
            let name = match parser.next_token().token {
                Token::QuestionAnd => "json_has_all_keys",
                Token::QuestionPipe => "json_has_any_key",
                _ if parser.consume_token(&Token::Pipe) => "json_has_any_key",
                _ if parser.consume_token(&Token::Ampersand) => "json_has_all_keys",
                _ => "json_has_key",
            };
            let right = parser.parse_subexpr(25);
            return Some(right.map(|right| call(name, vec![left.clone(), right])));
        }
        if let Some(between) = between_symmetric(parser, left) {
            return Some(between);
        }
        if begins_list_of_queries(parser)
            && let Some(list) = parser.maybe_parse(|parser| list_of_queries(parser, left)).transpose()
        {
            return Some(list);
        }
        if let Some((op, is_any)) = quantifier(parser) {
            let quantified = parser.maybe_parse(|parser| quantified_query(parser, left, op.clone(), is_any));
            if let Some(quantified) = quantified.transpose() {
                return Some(quantified);
            }
        }
        let is = [Keyword::IS, Keyword::DISTINCT, Keyword::FROM];
        let is_not = [Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM];
        let negated = parser.parse_keywords(&is_not);
        if !negated && !parser.parse_keywords(&is) {
            return None;
        }
        let left = Box::new(left.clone());
        let right = parser.parse_subexpr(self.prec_value(Precedence::Is)).map(Box::new);
        Some(right.map(|right| {
            if negated { Expr::IsNotDistinctFrom(left, right) } else { Expr::IsDistinctFrom(left, right) }
        }))
    }

    fn supports_insert_table_alias(&self) -> bool {
        true
    }

    as_generic!(
        supports_unicode_string_literal,
        supports_partition_by_after_order_by,
        supports_array_join_syntax,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_left_associative_joins_without_parens,
        supports_connect_by,
        supports_match_recognize,
        supports_pipe_operator,
        supports_start_transaction_modifier,
        supports_window_function_null_treatment_arg,
        supports_dictionary_syntax,
        supports_window_clause_named_window_reference,
        supports_parenthesized_set_variables,
        supports_select_wildcard_except,
        support_map_literal_syntax,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_extract_comma_syntax,
        supports_create_view_comment_syntax,
        supports_parens_around_table_factor,
        supports_values_as_table_factor,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_limit_comma,
        supports_update_order_by,
        supports_from_first_select,
        supports_projection_trailing_commas,
        supports_asc_desc_in_column_definition,
        supports_try_convert,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_assignment_operator,
        supports_struct_literal,
        supports_empty_projections,
        supports_nested_comments,
        supports_multiline_comment_hints,
        supports_user_host_grantee,
        supports_string_escape_constant,
        supports_array_typedef_with_brackets,
        supports_match_against,
        supports_set_names,
        supports_comma_separated_set_assignments,
        supports_filter_during_aggregation,
        supports_select_wildcard_exclude,
        supports_data_type_signed_suffix,
        supports_interval_options,
        supports_quote_delimited_string,
        supports_select_wildcard_replace,
        supports_select_wildcard_ilike,
        supports_select_wildcard_rename,
        supports_optimize_table,
        supports_install,
        supports_detach,
        supports_prewhere,
        supports_with_fill,
        supports_limit_by,
        supports_interpolate,
        supports_settings,
        supports_select_format,
        supports_comment_optimizer_hint,
        supports_constraint_keyword_without_name,
        supports_key_column_option,
        supports_comma_separated_trim,
        supports_cte_without_as,
        supports_select_item_multi_column_alias,
        supports_xml_expressions,
    );
}

/// Whether a query in brackets of its own comes next, or VALUES: the parser looks for SELECT and WITH behind one bracket only.
fn begins_query(parser: &Parser<'_>) -> bool {
    let mut brackets = 0;
    while parser.peek_nth_token_ref(brackets).token == Token::LParen {
        brackets += 1;
    }
    let Token::Word(word) = &parser.peek_nth_token_ref(brackets).token else { return false };
    match word.keyword {
        Keyword::VALUES => parser.peek_nth_token_ref(brackets + 1).token == Token::LParen,
        Keyword::SELECT | Keyword::WITH => brackets > 1,
        _ => false,
    }
}

fn bracketed_query(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let is_bracketed = parser.consume_token(&Token::LParen);
    let query = parser.parse_query()?;
    if is_bracketed {
        parser.expect_token(&Token::RParen)?;
    }
    Ok(Expr::Subquery(query))
}

/// Whether `[NOT] IN ((SELECT` comes next: the parser takes the first of several queries in brackets for the only one.
fn begins_list_of_queries(parser: &Parser<'_>) -> bool {
    let is = |nth: usize, keyword: Keyword| matches!(&parser.peek_nth_token_ref(nth).token, Token::Word(word) if word.keyword == keyword);
    let at = usize::from(is(0, Keyword::NOT));
    let mut brackets = 0;
    while parser.peek_nth_token_ref(at + 1 + brackets).token == Token::LParen {
        brackets += 1;
    }
    let queries = [Keyword::SELECT, Keyword::WITH, Keyword::VALUES];
    is(at, Keyword::IN) && brackets > 1 && queries.into_iter().any(|keyword| is(at + 1 + brackets, keyword))
}

fn list_of_queries(parser: &mut Parser<'_>, left: &Expr) -> Result<Expr, ParserError> {
    let negated = parser.parse_keyword(Keyword::NOT);
    parser.expect_keyword_is(Keyword::IN)?;
    parser.expect_token(&Token::LParen)?;
    let list = parser.parse_comma_separated(Parser::parse_expr)?;
    parser.expect_token(&Token::RParen)?;
    if list.len() < 2 {
        return Err(ParserError::ParserError("one query is no list".to_owned()));
    }
    Ok(Expr::InList { expr: Box::new(left.clone()), list, negated })
}

/// The operator of `op ANY ((`, and whether it is ANY: the parser takes what is in two brackets for a value.
fn quantifier(parser: &Parser<'_>) -> Option<(BinaryOperator, bool)> {
    let op = match parser.peek_token_ref().token {
        Token::Eq => BinaryOperator::Eq,
        Token::Neq => BinaryOperator::NotEq,
        Token::Lt => BinaryOperator::Lt,
        Token::LtEq => BinaryOperator::LtEq,
        Token::Gt => BinaryOperator::Gt,
        Token::GtEq => BinaryOperator::GtEq,
        _ => return None,
    };
    let Token::Word(word) = &parser.peek_nth_token_ref(1).token else { return None };
    let is_any = match word.keyword {
        Keyword::ANY | Keyword::SOME => true,
        Keyword::ALL => false,
        _ => return None,
    };
    let is_bracketed = [2, 3].into_iter().all(|nth| parser.peek_nth_token_ref(nth).token == Token::LParen);
    is_bracketed.then_some((op, is_any))
}

fn quantified_query(
    parser: &mut Parser<'_>,
    left: &Expr,
    compare_op: BinaryOperator,
    is_any: bool,
) -> Result<Expr, ParserError> {
    for _ in 0..2 {
        parser.advance_token();
    }
    parser.expect_token(&Token::LParen)?;
    let right = Box::new(Expr::Subquery(parser.parse_query()?));
    parser.expect_token(&Token::RParen)?;
    let left = Box::new(left.clone());
    Ok(if is_any {
        Expr::AnyOp { left, compare_op, right, is_some: false }
    } else {
        Expr::AllOp { left, compare_op, right }
    })
}

/// Whether a question about keys of a document comes next: `?`, `?|` or `?&`.
fn is_key_question(parser: &Parser<'_>) -> bool {
    match &parser.peek_token_ref().token {
        Token::Question | Token::QuestionAnd | Token::QuestionPipe => true,
        Token::Placeholder(name) => name == "?",
        _ => false,
    }
}

/// `[NOT] BETWEEN SYMMETRIC a AND b`: within the bounds, whichever is the greater.
fn between_symmetric(parser: &mut Parser<'_>, left: &Expr) -> Option<Result<Expr, ParserError>> {
    let is_symmetric =
        |token: &Token| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case("symmetric"));
    let [first, second, third] = [0, 1, 2].map(|nth| parser.peek_nth_token(nth).token);
    let is = |token: &Token, keyword: Keyword| matches!(token, Token::Word(word) if word.keyword == keyword);
    let negated = is(&first, Keyword::NOT) && is(&second, Keyword::BETWEEN) && is_symmetric(&third);
    let is_plain = is(&first, Keyword::BETWEEN) && is_symmetric(&second);
    if !negated && !is_plain {
        return None;
    }
    for _ in 0..2 + usize::from(negated) {
        parser.advance_token();
    }
    let mut bound = || parser.parse_subexpr(GenericDialect {}.prec_value(Precedence::Between));
    let low = match bound() {
        Ok(low) => low,
        Err(error) => return Some(Err(error)),
    };
    if let Err(error) = parser.expect_keyword_is(Keyword::AND) {
        return Some(Err(error));
    }
    let high = match parser.parse_subexpr(GenericDialect {}.prec_value(Precedence::Between)) {
        Ok(high) => high,
        Err(error) => return Some(Err(error)),
    };
    let within = call("between_symmetric", vec![left.clone(), low, high]);
    Some(Ok(if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(within) } } else { within }))
}
