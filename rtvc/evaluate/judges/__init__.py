"""Judges that no training ever sees: second opinions on words and naturalness, each in an optional
package."""
