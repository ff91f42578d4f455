// Package wire holds the JSON shapes of Postrider's HTTP API, version 1, for
// both sides of it. docs/api.md describes them.
//
// Names are snake_case and stay as they are within a version; fields may be
// added. Instants are RFC 3339 in UTC and left out where there is none; spans
// are seconds as a number where the server answers them, and text with a unit
// ("90s", "4h", "2d") where a person writes them. A word out of a closed set
// (a status, a verdict, a stage) is in lower case.
package wire
