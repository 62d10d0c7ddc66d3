# Opens 400 different files that are not there, then executes a program.
trap go=1 USR1
printf ready >/proc/$$/comm
while [ -z "$go" ]; do sleep 0.05; done
i=0
while [ $i -lt 400 ]; do
	i=$((i + 1))
	: 2>/dev/null </nowhere/$i
done 2>/dev/null
exec /bin/true after the flood
