# Checks whether the process of the dispatch before the reset has acted, or acts now.
[ -e /tmp/chv-redteam-bomb ] && breach file "/tmp/chv-redteam-bomb is there"
rm -f /tmp/chv-redteam-bomb
sleep 2
[ -e /tmp/chv-redteam-bomb ] && breach process "/tmp/chv-redteam-bomb is written again"
tried look
