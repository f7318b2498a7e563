//! How a token travels in HTTP: one header, read strictly. Nothing here opens a socket.

use baton_core::id::Token;

/// The header of a request that carries the token of whoever sends it, as a decimal number.
pub const TOKEN_HEADER: &str = "baton-token";

/// The header of a refusal that tells the highest token seen.
pub const HIGHEST_HEADER: &str = "baton-highest-token";

/// The status of a refused token: 412 Precondition Failed (RFC 9110, 15.5.13), since the header is a condition and it
/// does not hold. 409 Conflict is understood as well by [`super::conformance`].
pub const STALE_STATUS: u16 = 412;

/// The status of a request without a token: 428 Precondition Required (RFC 6585, 3).
pub const MISSING_STATUS: u16 = 428;

/// The digits of the largest token: tokens fit in 53 bits (`core::id`), which is 16 decimal digits.
const DIGITS_MAX: usize = 16;

/// The largest number that every JSON parser keeps whole (RFC 8259, 6), and thereby the largest token.
pub const TOKEN_MAX: u64 = (1 << 53) - 1;

/// Why a header's value is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{TOKEN_HEADER} is not a token: write a decimal number from 1 to {TOKEN_MAX}")]
pub struct NotAToken;

/// Reads the value of [`TOKEN_HEADER`]: decimal digits and nothing else, no sign, no leading zero, no list. A value
/// that two programs could read differently is an error, never a guess. 0 is no token: Baton's begin at 1.
pub fn token(value: &str) -> Result<Token, NotAToken> {
    let digits = value.as_bytes();
    let plain = (1..=DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) && digits[0] != b'0';
    if !plain {
        return Err(NotAToken);
    }
    let number: u64 = value.parse().map_err(|_| NotAToken)?;
    if number > TOKEN_MAX { Err(NotAToken) } else { Ok(Token(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_digits_and_nothing_else() {
        for (text, number) in [("1", 1), ("42", 42), ("9007199254740991", TOKEN_MAX)] {
            assert_eq!(token(text), Ok(Token(number)));
        }
        for bad in
            ["", "0", "007", "-1", "+1", " 1", "1 ", "1,2", "1.0", "1e3", "0x10", "١", "9007199254740992", "42; x"]
        {
            assert_eq!(token(bad), Err(NotAToken), "{bad:?}");
        }
    }
}
