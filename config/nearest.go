package config

import "strings"

// nearest gives the name that s was perhaps meant to be, or "" where none is
// near: the same last part in another table, or a few letters away.
func nearest(s string, names []string) string {
	if len(s) > 100 {
		return ""
	}
	last := s[strings.LastIndexByte(s, '.')+1:]
	best, bestAway := "", len(s)/3+1
	for _, name := range names {
		away := distance(s, name)
		if name[strings.LastIndexByte(name, '.')+1:] == last {
			away = min(away, 2)
		}
		if away < bestAway {
			best, bestAway = name, away
		}
	}
	return best
}

// distance counts the letters to insert, remove or change (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
